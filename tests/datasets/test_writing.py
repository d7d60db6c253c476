"""What is written comes back equal."""

from __future__ import annotations

import numpy as np
import pytest

import sdk
from sdk.datasets import Coco, DatasetError, Shapes, Voc
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
