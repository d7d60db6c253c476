"""Many processes, shards, and jobs that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sdk
from sdk.datasets import DatasetError, Shapes
from sdk.errors import SdkError
from sdk.inference.pipeline import Looked, Settings
from sdk.inference.processes import named_devices
from sdk.inference.shards import Journal, about, mark, packed, shard_images, unpacked
from sdk.inference.sources import Source
from sdk.models.structures import Detections
from sdk.results.run import load


@pytest.fixture
def detector(tiny):
    made = tiny(seed=1)
    made.test.score_threshold, made.test.max_per_image = 0.0, 5
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """140 images, of which every twentieth is broken."""
    folder = tmp_path_factory.mktemp("images")
    drawn = Shapes(140, size=(64, 64))
    for number in range(140):
        path = folder / f"{number:03}.png"
        if number % 20 == 7:
            path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        else:
            Image.fromarray(drawn[number].image).save(path)
    return folder


def looked(number: int, count: int, masks: bool) -> Looked:
    generator = torch.Generator().manual_seed(number)
    found = Detections(
        torch.rand(count, 4, generator=generator) * 40,
        torch.rand(count, generator=generator),
        torch.randint(5, (count,), generator=generator),
        torch.rand(count, 30, 40 + number, generator=generator) > 0.6 if masks else None,
        torch.rand(count, generator=generator) if masks else None,
    )
    return Looked(Source(np.full((30, 40 + number, 3), number, np.uint8), number), (30, 40 + number), found)


@pytest.mark.parametrize("masks", [False, True])
def test_a_shard_comes_back_equal(tmp_path, masks):
    bad = Source(tmp_path / "none.png", "none", tmp_path / "none.png")
    fault = bad.fault(DatasetError("file is missing", file=bad.path, expected="a file"))
    images = [looked(1, 3, masks), looked(2, 0, masks), Looked(bad, fault=fault), looked(3, 4, masks)]
    sources = [one.source for one in images]
    content = packed(images)
    again = unpacked(content, sources)
    assert [one.source for one in again] == sources
    assert again[2] == images[2]
    for one, other in zip([*again[:2], again[3]], [*images[:2], images[3]]):
        assert one.size == other.size
        for name, value in vars(other.detections).items():
            assert (
                value is None
                if getattr(one.detections, name) is None
                else torch.equal(value, getattr(one.detections, name))
            )
    journal = Journal(tmp_path / "out.json")
    journal.open({"model": "a"})
    journal.write(3, content)
    assert journal.read(3, sources) == content
    assert journal.read(2, sources) is None
    assert journal.read(3, sources[::-1]) is None
    for place in range(0, len(content), 97):
        damaged = bytearray(journal.path(3).read_bytes())
        damaged[place] ^= 0x10
        journal.path(4).write_bytes(damaged)
        assert journal.read(4, sources) is None
    journal.path(4).write_bytes(journal.path(3).read_bytes()[:-20])
    assert journal.read(4, sources) is None


def test_marks_tell_images_apart(tmp_path):
    path = tmp_path / "a.png"
    contents = [path, b"a", b"b", np.zeros((2, 2)), np.ones((2, 2)), torch.ones(3, 1, 2), Image.new("RGB", (2, 2))]
    sources = [Source(content, "a") for content in contents] + [Source(path, "a", path), Source(path, "b", path)]
    marks = [mark(source) for source in sources]
    assert len(set(marks)) == len(sources)
    assert [mark(source) for source in sources] == marks
    path.write_bytes(b"another")
    assert mark(sources[-1]) != marks[-1]


def test_another_job_does_not_go_on(detector, tmp_path):
    detector.classes = ("circle", "square", "triangle", "cross")
    journal = Journal(tmp_path / "out.json")
    journal.open(about(load(detector), Settings()))
    journal.open(about(load(detector), Settings(threads=7)))
    for settings in (Settings(batch_size=2), Settings(labels=(1,)), Settings(score_threshold=0.5)):
        with pytest.raises(SdkError, match="remove this folder to begin anew"):
            journal.open(about(load(detector), settings))
    next(detector.parameters()).data[0] += 1e-6
    with pytest.raises(SdkError, match="a job was stopped here whose weights is"):
        journal.open(about(load(detector), Settings()))
    assert [shard_images(size) for size in (1, 8, 24, 32, 50)] == [32, 32, 48, 32, 50]


def test_devices_have_names():
    assert named_devices(3, "cpu") == ["cpu"] * 3
    assert named_devices("auto", "cpu") == ["cpu"]
    assert named_devices("0,1", "cpu") == ["cpu"] * 2
    for wrong in (0, -2, True):
        with pytest.raises(SdkError, match="devices: expected a number from 1 on"):
            named_devices(wrong, "cpu")
    with pytest.raises(SdkError, match="expected a kind such as cpu or cuda"):
        named_devices(2, "cuda:1")


def test_two_processes_find_what_one_does(detector, folder, tmp_path):
    detector.category_ids = (1, 2, 3, 4)
    # Of the kinds of images that are sent to other processes some are not files.
    drawn = [Shapes(3, size=(64, 64))[number].image for number in range(3)]
    images = [folder, drawn[0], Image.fromarray(drawn[1]), torch.from_numpy(drawn[2]).permute(2, 0, 1)]
    expected = sdk.predict(images, detector, batch_size=3, out=tmp_path / "one.json")
    options = {"batch_size": 3, "devices": 2, "device": "cpu", "stream": True}
    stream = sdk.predict(images, detector, **options, out=tmp_path / "two.json")
    found = list(stream)
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert [one.image_id for one in found] == [one.image_id for one in expected]
    assert stream.faults == expected.faults
    assert len(stream.faults) == 7
    for one, other in zip(found, expected):
        assert torch.equal(one.boxes, other.boxes)
        assert (one.path, one.size, one.category_ids) == (other.path, other.size, other.category_ids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]


def test_a_stopped_job_does_the_rest_alone(detector, folder, tmp_path):
    detector.category_ids = (1, 2, 3, 4)
    out, shards = tmp_path / "found.parquet", tmp_path / "found.parquet.shards"
    options = {"devices": 1, "device": "cpu", "stream": True, "out": out}
    with sdk.predict(folder, detector, **options) as stream:
        next(stream)
    finished = {path: path.stat().st_mtime_ns for path in shards.glob("*.shard")}
    assert finished
    assert not out.exists()
    # An image that changed is looked at again, and with it its shard.
    first = min(finished)
    os.utime(folder / "000.png")
    with pytest.raises(SdkError, match="batch size is 1; now it is 2"):
        sdk.predict(folder, detector, batch_size=2, **options)
    stream = sdk.predict(folder, detector, **options)
    next(stream)
    after = {path: path.stat().st_mtime_ns for path in finished}
    assert [path for path in finished if after[path] != finished[path]] == [first]
    list(stream)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.parquet"]
    sdk.predict(folder, detector, out=tmp_path / "expected.parquet")
    assert out.read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    with pytest.raises(SdkError, match="is there already"):
        sdk.predict(folder, detector, **options)


SCRIPT = """
import sys
import torch
import sdk
from sdk.models.zoo.tiny import tiny_retinanet

if __name__ == "__main__":
    torch.manual_seed(0)
    model = tiny_retinanet(4, base_channels=8, channels=16, depth=1)
    model.test.score_threshold, model.test.max_per_image, model.category_ids = 0.0, 20, (1, 2, 3, 4)
    for _ in sdk.predict(sys.argv[1], model, stream=True, device="cpu", devices=int(sys.argv[3]), out=sys.argv[2]):
        pass
"""


def killed_and_continued(folder: Path, tmp_path: Path, out: str, kills: int, seed: int) -> int:
    """Kills a job at random moments until it has been killed so often or is done, then lets it end; how often."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def command(path: Path, devices: int) -> list[str]:
        return [sys.executable, str(script), str(folder), str(path), str(devices)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    moments, killed = random.Random(seed), 0
    first = lambda: any((tmp_path / f"{out}.shards").glob("*"))
    for _ in range(kills):
        process = subprocess.Popen(command(tmp_path / out, 2), env=environment, stderr=subprocess.DEVNULL)
        # Starting takes some seconds, in which a kill meets nothing.
        while not first() and process.poll() is None:
            time.sleep(0.01)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, 8))
        if process.poll() == 0:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    if not (tmp_path / out).exists() or first():
        subprocess.run(command(tmp_path / out, 2), env=environment, check=True)
    subprocess.run(command(tmp_path / f"expected-{out}", 1), env=environment, check=True)
    return killed


@pytest.mark.long
def test_a_killed_job_goes_on(folder, tmp_path):
    assert killed_and_continued(folder, tmp_path, "found.json", kills=1, seed=0) == 1
    assert (tmp_path / "found.json").read_bytes() == (tmp_path / "expected-found.json").read_bytes()
    entries = json.loads((tmp_path / "found.json").read_text())
    images = [entry["image_id"] for entry in entries]
    # No image twice, none lost.
    assert list(dict.fromkeys(images)) == [f"{number:03}" for number in range(140) if number % 20 != 7]
    assert {images.count(image_id) for image_id in images} == {20}


@pytest.mark.long
def test_a_job_that_is_killed_twenty_times_goes_on(folder, tmp_path):
    many = tmp_path / "images"
    many.mkdir()
    for number in range(3000):
        (many / f"{number:05}.png").symlink_to(folder / f"{number % 140:03}.png")
    assert killed_and_continued(many, tmp_path, "found.jsonl", kills=20, seed=1) >= 10
    assert (tmp_path / "found.jsonl").read_bytes() == (tmp_path / "expected-found.jsonl").read_bytes()
