"""Files read as columns give what reading them element by element gives, and cost little."""

from __future__ import annotations

import dataclasses
import json
import random
import tracemalloc

import numpy as np
import pytest

from sdk.datasets import coco, json_columns, masks
from sdk.datasets.errors import DatasetError
from sdk.datasets.json_arrays import JsonArrays
from sdk.datasets.lvis import read_lvis

pytestmark = pytest.mark.skipif(json_columns._json_rows is None, reason="the native reader is not built")

TRIANGLE = [1.5, 2, 30.25, 4, 5, 60]
MASK = np.zeros((80, 100), np.uint8)
MASK[20:40, 30:70] = 1
RUNS = {"size": [80, 100], "counts": masks.encode(MASK)["counts"].decode()}


def content() -> dict:
    images = [{"id": i, "height": 80, "width": 100, "file_name": f"ä/{i}.jpg"} for i in range(1, 6)]
    annotations = [
        {
            "id": i,
            "image_id": 1 + i % 5,
            "category_id": 1 + i % 2,
            "bbox": [i % 40, 3.5, 10, 20.25],
            "area": 17.5,
            "iscrowd": 0,
            "segmentation": [TRIANGLE, [1, 1, 2, 2, 3, 1, 1e0, 0.5]] if i % 3 else RUNS,
        }
        for i in range(1, 40)
    ]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return {"info": {"x": [1, {"y": None}]}, "images": images, "annotations": annotations, "categories": categories}


# What may stand where something else is expected; some of it is right, and some of it a fault.
STRANGE = [
    None, True, -1, 0, 1, 2, 7, 1.0, 2.5, 10**30, -0.0, 1e300, float("nan"), float("inf"), "1", "a", "x\\y\u1234", [],
    {}, [1, 2, 3, 4], [1, 2, -3, 4], [1, 2, 3], [5, 5, float("inf"), 1], [[1, 2, 3, 4]], [TRIANGLE], [[*TRIANGLE, 7]],
    [[*TRIANGLE[:5], 900]], [[*TRIANGLE[:5], "6"]], [TRIANGLE, []], RUNS, {**RUNS, "size": [8, 10]},
    {**RUNS, "counts": "1"}, {"size": [80, 100], "counts": [8000]}, {"size": [80, 100], "counts": [7999, 1]},
    {"size": [80, 100]},
]  # fmt: skip


def disturbed(seed: int) -> dict:
    """The content with some values exchanged, left out or given twice."""
    draw = random.Random(seed)
    whole = content()
    for _ in range(draw.randrange(1, 9)):
        part = whole[draw.choice(["annotations"] * 6 + ["images"])]
        place = draw.randrange(len(part))
        entry = part[place]
        kind = draw.random()
        if kind < 0.7 and isinstance(entry, dict):
            fields = ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation", "height"]
            entry[draw.choice(fields)] = draw.choice(STRANGE)
        elif kind < 0.85 and isinstance(entry, dict) and entry:
            del entry[draw.choice(list(entry))]
        else:
            part[place] = draw.choice(STRANGE)
    if draw.random() < 0.3:
        whole = dict(reversed(whole.items()))
    return whole


def told(file, parts, repair: bool):
    """All that reading gives, in a form that can be compared."""
    try:
        index = coco.read_instances(parts, repair=repair)
    except DatasetError as error:
        return str(error)
    columns = index.annotations
    values = {f.name: getattr(columns, f.name) for f in dataclasses.fields(columns)}
    drawn = []
    if columns.segments is not None:
        segments = columns.segments
        drawn = [(segments.kind(i), segments.counts(i), segments.polygons(i)) for i in range(len(segments))]
    plain = {k: (v.dtype.kind, v.tolist()) for k, v in values.items() if isinstance(v, np.ndarray)}
    names = columns.image_files.tolist()
    return repr((plain, drawn, names, index.classes, index.category_ids, index.faults, index.fingerprint))


@pytest.mark.parametrize(("block", "files"), [(64, 25), (1 << 20, 50)])
def test_equals_reading_element_by_element(tmp_path, monkeypatch, block, files):
    monkeypatch.setattr(json_columns, "BLOCK", block)
    outcomes = set()
    for seed in range(files):
        file = tmp_path / f"{seed}.json"
        text = json.dumps(disturbed(seed), indent=seed % 3 or None, ensure_ascii=seed % 2 == 0)
        file.write_text(text, encoding="utf-8-sig" if seed % 5 == 0 else "utf-8")
        for repair in (False, True):
            parts = coco.instances_parts(file)
            assert isinstance(parts, json_columns.JsonColumns)
            expected = told(file, JsonArrays(file), repair)
            assert told(file, parts, repair) == expected, f"seed {seed}"
            outcomes.add("Fault(" in expected)
    assert outcomes == {True, False}


def test_numbers_are_the_nearest_doubles(tmp_path):
    draw = random.Random(0)
    numbers = [repr(draw.uniform(-1, 1) * 10 ** draw.randrange(-30, 30)) for _ in range(2000)]
    numbers += [
        f"{draw.randrange(10 ** draw.randrange(1, 25))}.{draw.randrange(10 ** draw.randrange(1, 25))}"
        for _ in range(2000)
    ]
    numbers += [
        "0",
        "-0",
        "-0.0",
        "9007199254740993",
        "9007199254740993.0",
        "1e-400",
        "4.9e-324",
        "123456789012345678901234567890",
        "5E+3",
    ]
    file = tmp_path / "numbers.json"
    file.write_text("[" + ",".join(f'{{"x":{number}}}' for number in numbers) + "]")
    rows = json_columns.read_array(file, {"x": json_columns.Kind.NUMBER})
    assert rows is not None
    expected = np.array([float(json.loads(number)) for number in numbers])
    assert rows.given["x"].all()
    assert rows.values["x"].tobytes() == expected.tobytes()


def test_what_is_no_json_is_said_as_before(tmp_path):
    """Whatever is cut off, put in or exchanged: either both ways read the same, or the error is the old one."""
    whole = json.dumps(content()).encode()
    draw = random.Random(1)
    file = tmp_path / "file.json"
    for _ in range(200):
        data = bytearray(whole)
        place = draw.randrange(len(data))
        kind = draw.random()
        if kind < 0.3:
            del data[place:]
        elif kind < 0.6:
            data[place] = draw.randrange(256)
        else:
            data[place:place] = draw.choice(
                [b",", b"]", b"}", b"{", b"[", b"\\", b'"', b"\xff", b"\0", b"00", b"1", b"."]
            )
        file.write_bytes(data)

        def slowly(file=file):
            try:
                return told(file, JsonArrays(file), False)
            except DatasetError as error:
                return str(error)

        try:
            found = told(file, coco.instances_parts(file), False)
        except DatasetError as error:
            found = str(error)
        assert found == slowly(), bytes(data[max(0, place - 20) : place + 20])


def test_lvis_reads_its_own_fields(tmp_path):
    whole = content()
    for entry in whole["categories"]:
        entry["frequency"] = "f"
    for entry in whole["images"]:
        entry |= {
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [1],
            "coco_url": f"http://x/val2017/{entry['id']}.jpg",
        }
    file = tmp_path / "lvis.json"
    file.write_text(json.dumps(whole))
    columns = read_lvis(file, names_by="coco_url").annotations
    assert columns.image_files.tolist() == [f"val2017/{i}.jpg" for i in range(1, 6)]
    assert columns.neg_labels is not None
    assert [columns.neg_labels[i].tolist() for i in range(5)] == [[1]] * 5


def test_a_large_file_makes_no_objects(tmp_path, monkeypatch):
    """Work is counted and not time: bytes read, elements that Python decodes, and memory of a reading."""
    whole = content()
    whole["annotations"] = [{**whole["annotations"][0], "id": i} for i in range(1, 20_001)]
    whole["annotations"][77]["segmentation"] = {"size": [80, 100], "counts": [7999, 1]}
    file = tmp_path / "large.json"
    file.write_text(json.dumps(whole))
    decoded, read = [], []
    annotation, more = coco._Reader.annotation, json_columns._Blocks._more

    def counted(reader, place, entry):
        decoded.append(place)
        annotation(reader, place, entry)

    def measured(blocks):
        before = blocks._end - blocks._place
        more(blocks)
        read.append(blocks._end - before)

    monkeypatch.setattr(coco._Reader, "annotation", counted)
    monkeypatch.setattr(json_columns._Blocks, "_more", measured)
    tracemalloc.start()
    index = coco.read_instances(coco.instances_parts(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index.annotations) == 20_000
    assert decoded == [77]
    assert sum(read) == file.stat().st_size
    # The window, and less than 600 bytes an annotation; parsed by Python, one takes 3,000.
    assert peak < 4 * json_columns.BLOCK + 600 * 20_000
