"""Damaged datasets: whatever is done to the files, there is no crash, no hang and no error without a place.

Every kind of fault is put into a copy of real samples with several seeds; the dataset is then opened in every mode,
read to the end, checked, and read again as the check repaired it.
"""

import itertools
import json
import re
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_layouts as layouts

from sdk.datasets import Cityscapes, Coco, DatasetError, DeepFashion, Lvis, Voc, WiderFace
from sdk.datasets.checking import check
from sdk.datasets.opening import open_layout

SECONDS = 60
SEEDS = pytest.mark.parametrize(
    "seeds", [range(3), pytest.param(range(3, 50), marks=pytest.mark.long)], ids=["few", "many"]
)
HOSTILE = [
    None,
    "text",
    True,
    -1,
    0,
    1e30,
    10**30,
    float("nan"),
    float("inf"),
    [],
    [[]],
    {},
    [None],
    {"a": 1},
    "\0",
    2.5,
]


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def annotation(content, rng) -> dict:
    return pick(rng, content["annotations"])


def with_polygons(content, rng) -> dict:
    return pick(rng, [a for a in content["annotations"] if isinstance(a["segmentation"], list)])


def setting(entry: str, field: str, values: list) -> Callable:
    def change(content, rng):
        pick(rng, content[entry])[field] = pick(rng, values)

    return change


def run_lengths(values: list) -> Callable:
    def change(content, rng):
        target = annotation(content, rng)
        image = next(i for i in content["images"] if i["id"] == target["image_id"])
        size = [image["height"], image["width"]]
        target["segmentation"] = {"size": size, "counts": pick(rng, values)} if rng.random() < 0.8 else {"size": size}

    return change


def points(values: list) -> Callable:
    def change(content, rng):
        polygon = pick(rng, with_polygons(content, rng)["segmentation"])
        polygon[int(rng.integers(len(polygon)))] = pick(rng, values)

    return change


def doubled(entry: str) -> Callable:
    return lambda content, rng: content[entry].append(dict(pick(rng, content[entry])))


def without(entry: str, fields: list[str]) -> Callable:
    return lambda content, rng: pick(rng, content[entry]).pop(pick(rng, fields), None)


# Kinds after which a fault must be noticed, by what they do to the parsed file.
NOTICED = {
    "unknown category": setting("annotations", "category_id", [-7, 99_999, "cat", None, [1], 1.5]),
    "unknown image": setting("annotations", "image_id", [-7, 10**12, "x", None, {}]),
    "duplicate annotation id": doubled("annotations"),
    "duplicate image id": doubled("images"),
    "duplicate category": doubled("categories"),
    "box of wrong length": setting("annotations", "bbox", [[], [1], [1, 2, 3], [1, 2, 3, 4, 5], "1234", {"x": 1}]),
    "box not finite": setting("annotations", "bbox", [[float("nan"), 0, 5, 5], [0, 0, float("inf"), 5]]),
    "box negative": setting("annotations", "bbox", [[5, 5, -3, 5], [5, 5, 3, -1e-3]]),
    "box of text": setting("annotations", "bbox", [["a", "b", "c", "d"], [None] * 4, [[1]] * 4, [True] * 4]),
    "box without area": setting("annotations", "bbox", [[5, 5, 0, 5], [5, 5, 5, 0], [3, 3, 0, 0]]),
    "box outside": setting("annotations", "bbox", [[1e5, 5, 10, 10], [-500, -500, 20, 20]]),
    "polygon of odd length": lambda c, r: pick(r, with_polygons(c, r)["segmentation"]).append(1.0),
    "polygon too short": lambda c, r: with_polygons(c, r)["segmentation"].append([1, 2, 3, 4]),
    "polygon not finite": points([float("nan"), float("inf"), float("-inf")]),
    "polygon huge": points([1e9, -1e12, 1e300]),
    "polygon of text": points(["a", None, [1], {}]),
    "run lengths of another size": lambda c, r: annotation(c, r).update(
        segmentation={"size": pick(r, [[3, 3], [-1, 5], [10**9, 10**9], "ab", None]), "counts": [9]}
    ),
    "run lengths malformed": run_lengths(
        ["", "~~~~", "0", "PPPP", "abc\x7f", "é", [-5], [1, 2], [10**20], None, 3, b"".hex()]
    ),
    "image without size": setting("images", "height", [None, 0, -4, "480", 1.5, 2**40]),
    "image without name": setting("images", "file_name", [None, "", 5, ["a"], "a\0b"]),
    "image without id": setting("images", "id", [None, [1], 1.5, {}]),
    "category without id": setting("categories", "id", [None, "x", 1.5]),
    "annotation is no object": lambda c, r: c["annotations"].insert(0, pick(r, [None, 3, "x", [1]])),
    "image is no object": lambda c, r: c["images"].insert(0, pick(r, [None, 3, "x", [1]])),
    "no categories": lambda c, r: c.update(categories=pick(r, [[], None, {}, "x"])),
    "no images": lambda c, r: c.update(images=pick(r, [None, {}, "x", 3])),
}


def hostile(entries: Callable) -> Callable:
    def change(content, rng):
        target = entries(content, rng)
        target[pick(rng, list(target))] = pick(rng, HOSTILE)

    return change


ANNOTATION_FIELDS = ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"]
ANY = {
    "any value of an annotation": hostile(annotation),
    "any value of an image": hostile(lambda content, rng: pick(rng, content["images"])),
    "any value of a category": setting("categories", "name", HOSTILE),
    "any part": hostile(lambda content, rng: content),
    "field missing": without("annotations", ANNOTATION_FIELDS),
    "image field missing": without("images", ["id", "height", "width", "file_name"]),
}


class Timeout(Exception):
    pass


def watched(work: Callable) -> object:
    """Runs, and gives what is returned or the DatasetError; fails after ``SECONDS``."""

    def stop(*_):
        raise Timeout(f"not done after {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        return work()
    except DatasetError as error:
        return error
    finally:
        signal.alarm(0)


def read_all(dataset) -> None:
    for index in range(len(dataset)):
        dataset.info(index)
        sample = dataset[index]
        assert np.isfinite(sample.boxes).all()
        assert ((sample.labels >= 0) & (sample.labels < len(dataset.classes))).all()
        if sample.masks is not None:
            assert sample.masks.decode().shape == (len(sample.labels), *sample.size)
    columns = dataset.annotations
    for row in range(len(columns) if columns.segments is not None else 0):
        columns.segmentation(row)


def survive(open_dataset: Callable, places: tuple[Path, ...], noticed: bool) -> None:
    """Open, read and check in every mode; an error must name a file in one of the places."""
    seen = []
    for on_fault in ("raise", "skip", "repair"):

        def work(on_fault=on_fault):
            dataset = open_dataset(on_fault=on_fault)
            report = check(dataset, mode="repair", decode=True)
            seen.extend(report.faults)
            if report.dataset is not dataset and len(report.dataset):
                read_all(report.dataset)
            read_all(dataset)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = watched(work)
        if isinstance(result, DatasetError):
            assert any(str(place) in str(result) for place in places), f"no place: {result}"
            seen.append(result)
    assert seen or not noticed, "the fault went unnoticed"


@pytest.fixture(scope="module")
def small_coco(shared) -> tuple[dict, Path]:
    """Six real images with their annotations, crowds among them."""
    folder = shared / "data" / "coco_val2014_100"
    content = json.loads((folder / "annotations" / "instances_val2014_54.json").read_text())
    crowds = [a["image_id"] for a in content["annotations"] if a["iscrowd"]][:2]
    images = [i for i in content["images"] if i["id"] in crowds][:2] + content["images"][:4]
    ids = {i["id"] for i in images}
    images = list({i["id"]: i for i in images}.values())
    annotations = [a for a in content["annotations"] if a["image_id"] in ids]
    return {"images": images, "annotations": annotations, "categories": content["categories"]}, folder / "val2014"


def test_undamaged_files_have_no_faults(small_coco, tmp_path):
    content, images = small_coco
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    with pytest.raises(AssertionError, match="unnoticed"):
        survive(lambda on_fault: Coco(annotations=file, images=images, on_fault=on_fault), (file,), noticed=True)


@SEEDS
@pytest.mark.parametrize("kind", [*NOTICED, *ANY])
def test_coco(small_coco, tmp_path, kind, seeds):
    content, images = small_coco
    file = tmp_path / "instances.json"
    for seed in seeds:
        damaged = json.loads(json.dumps(content))
        {**NOTICED, **ANY}[kind](damaged, np.random.default_rng(seed))
        file.write_text(json.dumps(damaged))
        places = (file, images)
        survive(lambda on_fault: Coco(annotations=file, images=images, on_fault=on_fault), places, kind in NOTICED)


def cut(data: bytes, rng) -> bytes:
    return data[: int(rng.integers(len(data)))]


def flipped(data: bytes, rng) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(len(data), size=5):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def spliced(data: bytes, rng) -> bytes:
    start, length, target = rng.integers(len(data)), rng.integers(1, 200), rng.integers(len(data))
    return data[:target] + data[start : start + length] + data[target:]


def replaced_number(data: bytes, rng) -> bytes:
    text = data.decode("latin1")
    numbers = list(re.finditer(r"\d+", text))
    if not numbers:
        return data
    match = pick(rng, numbers)
    value = pick(rng, ["-1", "0", "nan", "1e400", "99999999999999999999", "x", "", "1.5"])
    return (text[: match.start()] + value + text[match.end() :]).encode("latin1")


BYTES = {
    "cut": cut,
    "flipped": flipped,
    "spliced": spliced,
    "number": replaced_number,
    "empty": lambda d, r: b"",
    "noise": lambda d, r: r.bytes(200),
}


@SEEDS
@pytest.mark.parametrize("kind", BYTES)
def test_bytes_of_annotation_files(small_coco, shared, tmp_path, kind, seeds):
    """Text and binary files of every adapter, damaged without knowledge of what they hold."""
    data = shared / "data"
    content, images = small_coco
    slim = {**content, "annotations": content["annotations"][:5]}
    lvis = json.loads((data / "lvis_val_100" / "lvis_val_100.json").read_text())
    lvis["images"] = [i for i in lvis["images"] if i["id"] in (11813, 6460, 6894)]
    lvis["annotations"] = [a for a in lvis["annotations"] if a["image_id"] in (11813, 6460, 6894)]
    lvis["categories"] = [{k: c[k] for k in ("id", "name", "frequency")} for c in lvis["categories"]]
    voc = tmp_path / "voc"
    (voc / "Annotations").mkdir(parents=True)
    (voc / "JPEGImages").symlink_to(data / "bccd" / "JPEGImages")
    xml = (data / "bccd" / "Annotations" / "BloodImage_00007.xml").read_bytes()
    wider = tmp_path / "wider"
    (wider / "wider_face_split").mkdir(parents=True)
    (wider / "WIDER_val").symlink_to(data / "wider_face" / "WIDER_val")
    city = tmp_path / "city"
    (city / "gtFine" / "val" / "aa").mkdir(parents=True)
    polygons = data / "cityscapes" / "polygons_sample" / "aa_000000_gtFine_polygons.json"
    sources = [
        (tmp_path / "coco.json", json.dumps(slim).encode(),
         lambda f: lambda **k: Coco(annotations=f, images=images, **k)),
        (tmp_path / "lvis.json", json.dumps(lvis).encode(),
         lambda f: lambda **k: Lvis(annotations=f, images=data / "lvis_val_100" / "val2014", **k)),
        (tmp_path / "fashion.json", (data / "fashionpedia_sample" / "data" / "sample.json").read_bytes(),
         lambda f: lambda **k: DeepFashion(annotations=f, images=data / "fashionpedia_sample" / "images", **k)),
        (voc / "Annotations" / "BloodImage_00007.xml", xml, lambda f: lambda **k: Voc(voc, **k)),
        (wider / "wider_face_split" / "wider_face_val_bbx_gt.txt",
         (data / "wider_face" / "wider_face_split" / "wider_face_val_24_bbx_gt.txt").read_bytes(),
         lambda f: lambda **k: WiderFace(wider, **k)),
        (city / "gtFine" / "val" / "aa" / "aa_0_0_gtFine_polygons.json", polygons.read_bytes(),
         lambda f: lambda **k: Cityscapes(city, **k)),
    ]  # fmt: skip
    for file, original, opener in sources:
        for seed in seeds:
            file.write_bytes(BYTES[kind](original, np.random.default_rng(seed)))
            # Photos of Cityscapes are absent, so that reading ends with an error there even without damage.
            roots = {"voc": voc, "wider": wider, "city": city}
            place = next((root for root in roots.values() if root in file.parents), file)
            survive_anywhere(opener(file), (place, data))


def write_cvat_masks(root: Path) -> None:
    layouts.write_cvat(root)
    file = root / "annotations.xml"
    mask = '<mask label="cat" rle="1, 2, 1, 3, 1" left="20" top="30" width="4" height="2"/></image>'
    file.write_text(file.read_text().replace("</image>", mask, 1))


# What writes a folder, and the file in it that is damaged.
FOLDERS = {
    "imagefolder": (layouts.write_image_folder, "metadata.jsonl"),
    "cvat": (write_cvat_masks, "annotations.xml"),
    "via": (layouts.write_via_csv, "annotations.csv"),
    "createml": (layouts.write_createml, "_annotations.createml.json"),
    "label_studio": (layouts.write_label_studio_tasks, "project-1-at-2026-01-01.json"),
    "labelbox": (layouts.write_labelbox, "export.ndjson"),
    "odgt": (layouts.write_odgt, "annotation_train.odgt"),
    "supervisely": (layouts.write_supervisely, "ds0/ann/a.png.json"),
    "kitti": (layouts.write_kitti, "training/label_2/a.txt"),
    "csv": (layouts.write_csv_corners, "annotations.csv"),
}


@SEEDS
@pytest.mark.parametrize("layout", FOLDERS)
def test_bytes_of_files_of_annotation_tools(tmp_path, layout, seeds):
    write_it, name = FOLDERS[layout]
    write_it(tmp_path)
    original = (tmp_path / name).read_bytes()
    for kind, seed in itertools.product(BYTES, seeds):
        damaged = BYTES[kind](original, np.random.default_rng(seed))
        (tmp_path / name).write_bytes(damaged)
        survive_anywhere(lambda **given: open_layout(tmp_path, layout, **given), (tmp_path,))


def survive_anywhere(open_dataset: Callable, places: tuple[Path, ...]) -> None:
    for on_fault in ("raise", "skip", "repair"):

        def work(on_fault=on_fault):
            dataset = open_dataset(on_fault=on_fault)
            cleaned = check(dataset, mode="skip").dataset
            read_all(cleaned)
            read_all(dataset)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = watched(work)
        if isinstance(result, DatasetError):
            assert any(str(place) in str(result) for place in places), f"no place: {result}"


@SEEDS
@pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "noise"])
def test_bytes_of_image_files(shared, tmp_path, kind, seeds):
    """JPEG and PNG files: a damaged one is an error that names it, or decodes to an image of the right size."""
    folder = tmp_path / "voc"
    (folder / "Annotations").mkdir(parents=True)
    (folder / "JPEGImages").mkdir()
    name = "BloodImage_00007"
    shutil.copy(shared / "data" / "bccd" / "Annotations" / f"{name}.xml", folder / "Annotations")
    original = (shared / "data" / "bccd" / "JPEGImages" / f"{name}.jpg").read_bytes()
    city = tmp_path / "city"
    (city / "gtFine" / "val" / "aa").mkdir(parents=True)
    map_file = city / "gtFine" / "val" / "aa" / "aa_0_0_gtFine_instanceIds.png"
    map_original = next((shared / "data" / "cityscapes" / "gtFine" / "train").glob("*/*instanceIds.png")).read_bytes()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(BYTES[kind](original, rng))
        survive(lambda on_fault: Voc(folder, on_fault=on_fault), (folder,), kind in ("cut", "empty", "noise"))
        map_file.write_bytes(BYTES[kind](map_original, rng))
        survive_anywhere(lambda on_fault: Cityscapes(city, on_fault=on_fault), (city,))
