"""What is written comes back equal."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import sdk
from sdk.datasets import Coco, DatasetError, Shapes, Voc
from sdk.datasets.errors import DatasetWarning
from sdk.datasets.index import columns_of
from sdk.datasets.writing import losses, save


@pytest.fixture(scope="module")
def coco(shared) -> Coco:
    root = shared / "data" / "coco_val2014_100"
    return Coco(root, split="val2014_54")


def assert_equal(found, expected, *, ids: bool = True) -> None:
    a, b = columns_of(found), columns_of(expected)
    assert tuple(found.classes) == tuple(expected.classes)
    np.testing.assert_array_equal(a.image_offsets, b.image_offsets)
    np.testing.assert_array_equal(a.image_sizes, b.image_sizes)
    np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-6)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.ignore, b.ignore)
    if ids:
        np.testing.assert_array_equal(a.image_ids, b.image_ids)
        np.testing.assert_array_equal(a.annotation_ids, b.annotation_ids)
        np.testing.assert_array_equal(a.crowd, b.crowd)
        np.testing.assert_allclose(a.areas, b.areas)
    for i in (0, len(found) - 1):
        np.testing.assert_array_equal(found[i].image, expected[i].image)


def test_coco_comes_back_equal(coco, tmp_path):
    assert losses(coco, "coco") == []
    back = sdk.open(coco.save(tmp_path / "out"))
    assert_equal(back, coco)
    assert back.category_ids == coco.category_ids
    for i in range(len(coco)):
        for row in range(columns_of(coco).rows(i).start, columns_of(coco).rows(i).stop):
            assert columns_of(back).segmentation(row) == columns_of(coco).segmentation(row)


def test_parquet_comes_back_equal_but_for_run_lengths(coco, tmp_path):
    pytest.importorskip("pyarrow")
    told = losses(coco, "parquet")
    assert len(told) == 1
    assert "run lengths become boxes" in told[0]
    back = sdk.open(save(coco, tmp_path / "out", "parquet"))
    assert set(back.classes) <= set(coco.classes)
    names = [[d.classes[label] for label in columns_of(d).labels] for d in (back, coco)]
    assert names[0] == names[1]
    np.testing.assert_allclose(columns_of(back).boxes, columns_of(coco).boxes, atol=1e-6)
    np.testing.assert_array_equal(columns_of(back).image_ids, columns_of(coco).image_ids)


def test_splits_are_kept(shared, tmp_path):
    bccd = Voc(shared / "data" / "bccd", on_fault="skip")
    for layout in ("voc", "yolo", "coco"):
        back = sdk.open(save(bccd, tmp_path / layout, layout))
        for name in ("train", "val", "test"):
            part, whole = getattr(back, name), getattr(bccd, name)
            assert len(part) == len(whole)
            order = {columns_of(part).image_ids[i]: i for i in range(len(part))}
            for i in range(0, len(whole), 20):
                place = order[columns_of(whole).image_ids[i]]
                a, b = columns_of(part), columns_of(whole)
                np.testing.assert_allclose(a.boxes[a.rows(place)], b.boxes[b.rows(i)], atol=1e-6)
                names = [[d.classes[x] for x in c.labels[c.rows(n)]] for d, c, n in ((part, a, place), (whole, b, i))]
                assert names[0] == names[1]


def test_what_a_layout_cannot_hold_is_said_first(coco, tmp_path, capsys):
    sdk.convert(coco, tmp_path / "out", to="voc")
    said = capsys.readouterr().err.splitlines()
    assert "masks: Pascal VOC has boxes alone" in said[0]
    assert said[-1].endswith("written as voc")


def test_polygons_through_yolo(tmp_path):
    shapes = Shapes(4, size=(64, 64), max_objects=2)
    back = sdk.open(shapes.save(tmp_path / "out", "yolo"))
    assert len(back.train) == len(shapes.train) if shapes.train is not None else len(back) == len(shapes)


def test_nothing_is_overwritten(coco, tmp_path):
    (tmp_path / "own.txt").write_text("mine")
    with pytest.raises(DatasetError, match="nothing is overwritten"):
        save(coco, tmp_path)
    with pytest.raises(DatasetError, match="expected coco or voc or yolo or parquet"):
        save(coco, tmp_path / "new", "pascal")
    assert [file.name for file in tmp_path.iterdir()] == ["own.txt"]


def two_splits(root: Path) -> Path:
    """A data set whose splits have an image of the same name, with other pixels and another box."""
    (root / "annotations").mkdir(parents=True)
    for split, gray in (("train", 50), ("val", 200)):
        (root / split).mkdir()
        cv2.imwrite(str(root / split / "a.png"), np.full((20, 30, 3), gray, np.uint8))
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, gray // 10, 8], "area": 80, "iscrowd": 0}
            ],
            "categories": [{"id": 1, "name": "cell"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo", "parquet"])
def test_images_of_one_name_in_two_splits_stay_apart(tmp_path, layout):
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    expected = sdk.open(two_splits(tmp_path / "in"))
    back = sdk.open(save(expected, tmp_path / "out", layout, tell=list))
    for split in ("train", "val"):
        assert_equal(getattr(back, split), getattr(expected, split), ids=False)


def test_joined_data_sets_get_ids_of_their_own(tmp_path):
    joined = sdk.open([two_splits(tmp_path / "a"), two_splits(tmp_path / "b")])
    told: list[str] = []
    back = sdk.open(save(joined, tmp_path / "out", tell=told.append))
    assert any("ids of annotations" in text for text in told)
    for split in ("train", "val"):
        assert_equal(getattr(back, split), getattr(joined, split), ids=False)
        assert columns_of(getattr(back, split)).annotation_ids.tolist() == [1, 2]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_nothing_is_left_of_what_could_not_be_written(tmp_path, layout, existing):
    dataset = sdk.open(two_splits(tmp_path / "in"))
    assert len(dataset.val) == 1  # Opened while all is there.
    (tmp_path / "in" / "val" / "a.png").unlink()
    target = tmp_path / "out"
    if existing:
        target.mkdir()
    with pytest.raises(DatasetError, match=r"a\.png"):
        save(dataset, target, layout, tell=list)
    assert target.exists() == existing
    assert not existing or not any(target.iterdir())


def test_saving_says_what_is_lost(coco, tmp_path):
    with pytest.warns(DatasetWarning, match="masks: Pascal VOC has boxes alone"):
        coco.save(tmp_path / "out", "voc")
