import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from coco_files import tiny_coco, write_coco

from sdk.datasets import Coco, Shapes
from sdk.datasets.errors import DatasetError
from sdk.datasets.index import cache_folder, columns_of, concatenate, read_columns
from sdk.datasets.json_arrays import JsonArrays


def assert_same(first, second) -> None:
    names = ("image_ids", "image_sizes", "image_offsets", "annotation_ids", "boxes", "stated_boxes", "labels", "ignore",
             "crowd", "usable", "areas")  # fmt: skip
    for name in names:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    for row in range(len(first)):
        assert first.segmentation(row) == second.segmentation(row)


def test_the_second_opening_reads_the_columns(coco_folder, monkeypatch):
    first = Coco(coco_folder)
    folders = list((cache_folder() / "index").iterdir())
    assert len(folders) == 1
    monkeypatch.setattr("sdk.datasets.coco.read_instances", lambda *a, **k: pytest.fail("parsed again"))
    assert_same(Coco(coco_folder).annotations, first.annotations)


def test_a_changed_file_is_parsed_again(coco_folder):
    assert len(Coco(coco_folder).annotations) == 3
    content = tiny_coco()
    content["annotations"].pop()
    write_coco(coco_folder, content)
    assert len(Coco(coco_folder).annotations) == 2


def test_a_damaged_cache_is_replaced(coco_folder):
    whole = Coco(coco_folder).annotations
    folder = next((cache_folder() / "index").iterdir())
    for nonsense in (b"nonsense", b"", (folder / "labels.npy").read_bytes()[:-3]):
        # A new file: the old one is still mapped.
        (folder / "boxes.npy").unlink()
        (folder / "boxes.npy").write_bytes(nonsense)
        assert_same(Coco(coco_folder).annotations, whole)
    (folder / "index.json").unlink()
    assert_same(Coco(coco_folder).annotations, whole)


def test_a_cache_that_cannot_be_written_is_done_without(coco_folder, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDK_CACHE", str(tmp_path / "file"))
    assert len(Coco(coco_folder).annotations) == 3


def _open(folder: str, cache: str) -> str:
    os.environ["SDK_CACHE"] = cache
    return Coco(folder).fingerprint


def test_many_processes_open_at_once(coco_folder):
    cache = os.environ["SDK_CACHE"]
    with multiprocessing.get_context("fork").Pool(6) as pool:
        found = pool.starmap(_open, [(str(coco_folder), cache)] * 24)
    assert len(set(found)) == 1
    assert [p.name.startswith(".") for p in (Path(cache) / "index").iterdir()] == [False]
    shutil.rmtree(cache)
    assert Coco(coco_folder).fingerprint == found[0]


def test_selection_and_concatenation(shared):
    folder = shared / "data" / "coco_val2014_100"
    file = folder / "annotations" / "instances_val2014_100.json"
    whole = Coco(annotations=file, images=folder).annotations
    order = np.random.default_rng(0).permutation(100)
    parts = [whole.select(order[:30]), whole.select(order[30:])]
    assert_same(concatenate(parts), whole.select(order))
    assert_same(whole.select(np.arange(100)), whole)
    back = np.argsort(order)
    assert_same(whole.select(order).select(back), whole)
    assert concatenate([whole, whole]).image_ids[0] == f"0/{whole.image_ids[0]}"
    compact = whole.select(order[:5]).segments.compact()
    for row in range(len(compact)):
        assert compact.counts(row) == whole.select(order[:5]).segments.counts(row)
        for a, b in zip(compact.polygons(row), whole.select(order[:5]).segments.polygons(row)):
            np.testing.assert_array_equal(a, b)


def test_columns_of_a_plain_dataset_equal_its_own():
    dataset = Shapes(6)
    assert_same(read_columns(dataset), columns_of(dataset))


@pytest.mark.parametrize("text", ["{}", ' { "a" : [ ] } ', '{"a": [1, [2, {"b": 3}], null], "c": {"d": []}, "e": 5}'])
def test_arrays_of_json(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    whole = json.loads(text)
    for name, value in whole.items():
        if isinstance(value, list):
            assert list(JsonArrays(file).elements(name)) == value
    for name in ("c", "e", "z"):
        with pytest.raises(DatasetError):
            list(JsonArrays(file).elements(name))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": [1,', '{"a": [1 2]}', '{"a" [1]}', '{1: 2}', '{"a": 1, "a": 2}', "\xff",
             '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": ' + "9" * 5000 + "}"]
)  # fmt: skip
def test_broken_json_names_the_place(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("latin1"))
    with pytest.raises(DatasetError, match=r"x\.json"):
        list(JsonArrays(file).elements("b"))
