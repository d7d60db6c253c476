import numpy as np
import pytest
from coco_files import tiny_coco, write_coco

from sdk.datasets import Coco, DatasetError, DetectionDataset, Shapes, concat, repeat, split, subset
from sdk.datasets.index import read_columns


def test_subset(coco_folder):
    dataset = Coco(coco_folder)
    part = subset(dataset, [2, 0])
    assert isinstance(part, DetectionDataset)
    assert [part[i].image_id for i in range(2)] == [12, 7]
    assert part.annotations.image_ids.tolist() == [12, 7]
    assert part.annotations.annotation_ids.tolist() == [1, 3]
    assert part.info(1).labels.tolist() == dataset.info(0).labels.tolist()
    assert part.fingerprint == subset(dataset, [2, 0]).fingerprint != subset(dataset, [0, 2]).fingerprint
    for wrong in ([3], [-1], [0.5]):
        with pytest.raises(DatasetError):
            subset(dataset, wrong)


def test_repeat(coco_folder):
    twice = repeat(Coco(coco_folder), 2)
    assert [twice[i].image_id for i in range(6)] == [7, 3, 12] * 2
    assert len(twice.annotations) == 6
    with pytest.raises(DatasetError):
        repeat(twice, 0)


def test_concat(coco_folder, tmp_path):
    content = tiny_coco()
    for image in content["images"]:
        image["id"] += 100
    for annotation in content["annotations"]:
        annotation["image_id"] += 100
    write_coco(tmp_path / "b", content)
    first, second = Coco(coco_folder), Coco(tmp_path / "b")
    both = concat(first, second)
    assert [both[i].image_id for i in range(6)] == [7, 3, 12, 107, 103, 112]
    assert both[-1].image_id == 112
    assert both.annotations.image_ids.tolist() == [7, 3, 12, 107, 103, 112]
    built = read_columns(both)
    np.testing.assert_array_equal(built.boxes, both.annotations.boxes)
    same = concat(first, first)
    assert [same[i].image_id for i in (0, 3)] == ["0/7", "1/7"]
    with pytest.raises(IndexError):
        both[6]
    with pytest.raises(DatasetError, match=r"class lists differ.*cat"):
        concat(first, Coco(coco_folder, classes=["dog"]))
    with pytest.raises(DatasetError, match="another order"):
        concat(first, Coco(coco_folder, classes=["cat", "dog"]))


def test_split():
    dataset = Shapes(50)
    parts = split(dataset, {"train": 0.7, "val": 0.2, "test": 0.1}, seed=3)
    assert [len(part) for part in parts.values()] == [35, 10, 5]
    ids = [part[i].image_id for part in parts.values() for i in range(len(part))]
    assert sorted(ids) == list(range(50))
    again = split(dataset, {"train": 0.7, "val": 0.2, "test": 0.1}, seed=3)
    assert [p.fingerprint for p in parts.values()] == [p.fingerprint for p in again.values()]
    assert split(dataset, {"a": 0.7}, seed=4)["a"].fingerprint != parts["train"].fingerprint
    for wrong in ({}, {"a": 0}, {"a": 0.8, "b": 0.3}):
        with pytest.raises(DatasetError):
            split(dataset, wrong)


def test_groups_stay_on_one_side_and_classes_are_shared_out():
    dataset = Shapes(240, size=(32, 32), max_objects=4)
    videos = [index // 5 for index in range(240)]
    parts = split(dataset, {"train": 0.6, "val": 0.2, "test": 0.2}, by=videos, seed=1)
    sides = [{videos[i] for i in part.indices} for part in parts.values()]
    assert sorted(i for part in parts.values() for i in part.indices) == list(range(240))
    assert all(a.isdisjoint(b) for n, a in enumerate(sides) for b in sides[n + 1 :])
    whole = np.bincount(read_columns(dataset).labels, minlength=4)
    for part, fraction in zip(parts.values(), (0.6, 0.2, 0.2)):
        assert abs(len(part) / 240 - fraction) < 0.03
        np.testing.assert_allclose(np.bincount(part.annotations.labels, minlength=4) / whole, fraction, atol=0.06)
    again = split(dataset, {"train": 0.6, "val": 0.2, "test": 0.2}, by=lambda info: info.image_id // 5, seed=1)
    assert [part.fingerprint for part in again.values()] == [part.fingerprint for part in parts.values()]
    other = split(dataset, {"train": 0.6, "val": 0.2, "test": 0.2}, by=videos, seed=2)
    assert other["val"].fingerprint != parts["val"].fingerprint
    mapped = split(dataset, by={index: index // 5 for index in range(240)})
    assert list(mapped) == ["train", "val"]
    assert abs(len(mapped["val"]) - 48) <= 5


def test_rare_classes_reach_every_part():
    dataset = Shapes(60, size=(32, 32), max_objects=3)
    dataset.group = np.array(["a", "b", None, *range(57)], object)
    parts = split(dataset, {"train": 0.5, "val": 0.25}, by="group", seed=0)
    assert sum(map(len, parts.values())) == 45
    for part in parts.values():
        assert len(set(part.annotations.labels.tolist())) == 4


def test_groups_that_cannot_be(coco_folder):
    dataset = Coco(coco_folder)
    for wrong in ("patient", [1, 2], {7: 1}):
        with pytest.raises(DatasetError):
            split(dataset, by=wrong)
    with pytest.raises(DatasetError, match="fewer groups than parts"):
        split(dataset, by="folder")


def test_near_duplicates_stay_together(coco_folder):
    # All images of the folder are noise of their own, but one is a copy.
    train = coco_folder / "train"
    (train / "3.png").write_bytes((train / "7.png").read_bytes())
    parts = split(Coco(coco_folder), {"a": 0.6, "b": 0.4}, by="near_duplicates")
    ids = [{part.info(i).image_id for i in range(len(part))} for part in parts.values()]
    assert sorted(map(sorted, ids)) == [[3, 7], [12]]


def test_datasets_show_themselves():
    pandas = pytest.importorskip("pandas")
    whole = Shapes(6)
    part = subset(whole, [1, 3, 4])
    told = part.to_dict()
    rows = part.to_pandas()
    assert isinstance(rows, pandas.DataFrame)
    assert (told["images"], told["annotations"]) == (3, len(rows))
    counts = rows[~rows["ignore"]].groupby("class").size()
    assert {name: one["objects"] for name, one in told["classes"].items() if one["objects"]} == counts.to_dict()
    sample = part[1]
    own = rows[rows["image_id"] == sample.image_id]
    assert np.allclose(own[["x1", "y1", "x2", "y2"]], sample.boxes)
    assert repr(part) == f"Subset(3 images, {len(rows)} annotations, {len(whole.classes)} classes)"
    assert part._repr_html_().count("<tr>") == 1 + len(whole.classes)
