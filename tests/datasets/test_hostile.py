"""Files that are made to do harm are refused at once, with little memory, and with their name."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from sdk.datasets import Coco, DatasetError, Voc
from sdk.datasets.download import unpack
from sdk.datasets.proposals import read_proposals
from sdk.datasets.reading import read_image, read_map
from sdk.errors import RunError
from sdk.models.weights.reading import read_pickled
from sdk.results.state import load_training_state

IMAGE = np.zeros((8, 8, 3), np.uint8)


def refused(work, match: str, errors=DatasetError) -> None:
    """Fails unless ``work`` raises within a second and 100 MB of Python's memory."""
    tracemalloc.start()
    begin = time.process_time()
    try:
        with pytest.raises(errors, match=match):
            work()
        assert time.process_time() - begin < 1
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def entities(count: int, each: int) -> str:
    rows = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * each}">' for i in range(1, count))
    return f'<!DOCTYPE x [<!ENTITY a0 "lol">{rows}]><annotation><size>&a{count - 1};</size></annotation>'


BOMBS = [entities(count, each) for count in (9, 11, 14, 20) for each in (5, 10, 50)]
BOMBS += [f'<!DOCTYPE x [<!ENTITY a "{"x" * 70_000}">]><annotation>{"&a;" * n}</annotation>' for n in (5000, 20_000)]
BOMBS += [
    f'<!DOCTYPE x [<!ENTITY a SYSTEM "{address}">]><annotation><name>&a;</name></annotation>'
    for address in ("file:///etc/passwd", "/etc/passwd", "http://127.0.0.1:1/x", "https://example.org/x.dtd")
]
BOMBS += ['<!DOCTYPE x [<!ENTITY a "&b;"><!ENTITY b "&a;">]><annotation>&a;</annotation>']
BOMBS += ['<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd">%p;]><annotation>&p;</annotation>']


@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_entities(tmp_path, number):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "bomb.xml").write_text(BOMBS[number])
    refused(lambda: Voc(tmp_path), r"bomb\.xml")


NAMES = [
    "../../secret.png", "../../../etc/passwd", "a/../../../secret.png", "/etc/passwd", "/secret.png", "//etc/passwd",
    "../../../../../../../../etc/passwd", "./../../x.png", "a/b/../../../../x.png", "../../data2/x.png",
    "http://127.0.0.1:1/a.png", "https://example.org/a.png", "ftp://example.org/a.png", "file:///etc/passwd",
    "s3://bucket/a.png", "HTTP://example.org/a.png", "gs://bucket/a.png", "smb://host/a.png", "data://x/../../y",
    "../../../proc/self/environ",
]  # fmt: skip


def coco(folder: Path, name: str) -> Coco:
    images = folder / "data" / "images"
    images.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": 1, "file_name": name, "height": 8, "width": 8}],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }
    (folder / "data" / "a.json").write_text(json.dumps(content))
    return Coco(annotations=folder / "data" / "a.json", images=images)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_images_that_lead_elsewhere(tmp_path, name):
    import cv2

    cv2.imwrite(str(tmp_path / "secret.png"), IMAGE)
    dataset = coco(tmp_path, name)
    refused(lambda: dataset[0], r"image 1, field 'file_name': image (lies outside|is named by an address)")
    refused(lambda: dataset.info(0), "file_name")


def test_names_that_stay_beside_the_images_are_read(tmp_path):
    import cv2

    coco(tmp_path, "x.png")
    inside = tmp_path / "data" / "images" / "a..b.png"
    for path in (inside, tmp_path / "data" / "c.png"):
        cv2.imwrite(str(path), IMAGE)
    for name in ("a..b.png", "../images/a..b.png", "../c.png", str(inside)):
        assert coco(tmp_path, name)[0].image.shape == (8, 8, 3), name


def png(width: int, height: int, rows: int = 64) -> bytes:
    """A PNG that says to be of this size and holds so many rows of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (1 + width) * rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("seed", range(20))
def test_images_that_fill_the_memory(tmp_path, seed):
    rng = np.random.default_rng(seed)
    width = int(rng.integers(14_000, 2**20))
    (tmp_path / "bomb.png").write_bytes(png(width, int(rng.integers(200e6 // width + 1, 2**20)), rows=2))
    refused(lambda: read_image(tmp_path / "bomb.png"), r"bomb\.png")
    refused(lambda: read_map(tmp_path / "bomb.png"), r"bomb\.png")


def test_a_large_photograph_is_no_bomb(tmp_path):
    (tmp_path / "large.png").write_bytes(png(6000, 4000, rows=4000))
    assert read_image(tmp_path / "large.png").shape == (4000, 6000, 3)


class Hostile:
    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number

    def __reduce__(self):
        import os
        import shutil

        calls = [(open, (str(self.path), "w")), (os.mkdir, (str(self.path),)), (os.system, (f"touch {self.path}",)),
                 (eval, (f"open({str(self.path)!r}, 'w')",)), (shutil.copy, (__file__, str(self.path)))]  # fmt: skip
        return calls[self.number % len(calls)]


DOORS = {
    "training state": (load_training_state, "last.pt", torch.save),
    "weights": (read_pickled, "weights.pth", torch.save),
    "proposals": (lambda path: read_proposals(path, np.array([1])), "boxes.pkl", None),
    "arrays": (lambda path: read_proposals(path, np.array([1])), "boxes.npy", None),
}


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("door", DOORS)
def test_pickles_run_nothing(tmp_path, door, number):
    load, name, save = DOORS[door]
    content = {"model": Hostile(tmp_path / "ran", number), "state_dict": {}}
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, np.array([content], object), allow_pickle=True)
    elif save is None:
        path.write_bytes(pickle.dumps(content))
    else:
        save(content, path)
    refused(lambda: load(path), name.replace(".", r"\."), (DatasetError, RunError, ValueError))
    assert not (tmp_path / "ran").exists()


OUTSIDE = [
    "../x",
    "../../x",
    "/tmp/sdk-hostile",
    "a/../../x",
    "..\\x",
    "C:\\x",
    "a/b/../../../x",
    "//x",
    "..",
    "../a/b",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_write_nothing_outside(tmp_path, kind, name):
    file, target = tmp_path / f"a.{kind}", tmp_path / "deep" / "target"
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("good", b"1")
            archive.writestr(name, b"1")
    else:
        with tarfile.open(file, "w") as archive:
            for each in ("good", name):
                member = tarfile.TarInfo(each)
                member.size = 1
                archive.addfile(member, io.BytesIO(b"1"))
    refused(lambda: unpack(file, target), f"a\\.{kind}: archive with a name that leads out of it")
    assert not any(target.rglob("*"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{kind}", "deep"]


def test_archives_that_fill_the_disk(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros", "w") as stream,
    ):
        for _ in range(1100):
            stream.write(bytes(1 << 20))
    refused(lambda: unpack(tmp_path / "a.zip", tmp_path / "target"), r"a\.zip: archive is too large")
    assert not any((tmp_path / "target").iterdir())


FUZZ = """
import sys
import numpy as np
from sdk.datasets import DatasetError
from sdk.datasets.masks import area, bounding_box, check_polygons, decode, encode, encode_polygons
start, count = int(sys.argv[1]), int(sys.argv[2])
for seed in range(start, start + count):
    rng = np.random.default_rng(seed)
    size = [int(rng.integers(-2, 60)), int(rng.integers(0, 60))]
    try:
        if seed % 2:
            rle = encode((rng.random((max(size[0], 1), max(size[1], 1))) < 0.5).astype(np.uint8))
            counts = bytearray(rle["counts"])
            for _ in range(int(rng.integers(0, 4))):
                kind = rng.integers(3)
                place = int(rng.integers(len(counts) + (kind == 1)))
                if kind == 0: counts[place] = int(rng.integers(256))
                elif kind == 1: counts.insert(place, int(rng.integers(48, 112)))
                elif len(counts) > 1: del counts[place]
            found = bytes(counts) if rng.random() < 0.7 else [int(v) for v in rng.integers(-3, 2**int(rng.integers(1, 63)), 5)]
            rle = {"size": rle["size"] if rng.random() < 0.8 else size, "counts": found}
            mask = decode(rle)
            assert mask.shape == tuple(rle["size"]) and area(rle) == mask.sum() and len(bounding_box(rle)) == 4
        else:
            points = rng.normal(20, 10.0 ** rng.integers(0, 12), int(rng.integers(0, 14))).tolist()
            if rng.random() < 0.2 and points: points[int(rng.integers(len(points)))] = [np.nan, np.inf, -np.inf, 1e300, "a", None][int(rng.integers(6))]
            try: checked = check_polygons([points], (max(size[0], 1), max(size[1], 1)))
            except DatasetError: checked = [points] if all(isinstance(p, float) and np.isfinite(p) for p in points) and len(points) % 2 == 0 else []
            encode_polygons(checked, (max(size[0], 1), max(size[1], 1)))
    except DatasetError:
        pass
print("survived")
"""  # noqa: E501


@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.long)])
def test_fuzzed_masks_do_not_crash(count):
    """Run lengths and polygons as they come, in a process of their own: it would die of a crash in native code."""
    done = subprocess.run([sys.executable, "-c", FUZZ, "0", str(count)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "survived\n"
