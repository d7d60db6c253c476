import json

import numpy as np
import pytest

from sdk.datasets import DatasetError, Lvis
from sdk.datasets.errors import DatasetWarning


def test_federated_columns(shared):
    file = shared / "data" / "lvis_val_100" / "lvis_val_100.json"
    content = json.loads(file.read_text())
    dataset = Lvis(file.parent)
    columns = dataset.annotations
    assert (len(dataset), len(columns), len(dataset.classes)) == (100, 977, 1230)
    categories = {c["id"]: c for c in content["categories"]}
    assert dataset.classes == tuple(categories[i]["name"] for i in dataset.category_ids)
    assert columns.frequencies.tolist() == [categories[i]["frequency"] for i in dataset.category_ids]
    ids = np.array(dataset.category_ids)
    for index, entry in enumerate(content["images"]):
        assert columns.image_ids[index] == entry["id"]
        assert ids[columns.neg_labels[index]].tolist() == entry["neg_category_ids"]
        assert ids[columns.not_exhaustive_labels[index]].tolist() == entry["not_exhaustive_category_ids"]


def test_images_that_are_there(shared):
    with pytest.warns(DatasetWarning, match="97 of 100 images are missing"):
        dataset = Lvis(shared / "data" / "lvis_val_100", on_fault="skip")
    assert len(dataset) == 3
    assert len(dataset.annotations.neg_labels) == 3
    for index in range(3):
        sample = dataset[index]
        assert sample.masks.decode().shape == (len(sample.boxes), *sample.size)


def lvis_content() -> dict:
    return {
        "images": [
            {
                "id": 1,
                "height": 8,
                "width": 8,
                "coco_url": "http://images.cocodataset.org/train2017/000000000001.jpg",
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [],
            }
        ],
        "categories": [{"id": 1, "name": "a", "frequency": "r"}, {"id": 2, "name": "b", "frequency": "f"}],
        "annotations": [],
    }


def test_v1_paths_come_from_the_address(tmp_path):
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "000000000001.jpg").touch()
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(lvis_content()))
    dataset = Lvis(tmp_path, version="v1")
    assert dataset.path(0) == tmp_path / "train2017" / "000000000001.jpg"
    subset = Lvis(tmp_path, classes=["b"])
    assert subset.annotations.neg_labels[0].tolist() == [0]
    assert subset.annotations.frequencies.tolist() == ["f"]


@pytest.mark.parametrize("value", [None, [3], "2", [True, None]])
def test_faulty_federated_lists(tmp_path, value):
    content = lvis_content()
    content["images"][0]["neg_category_ids"] = value
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"lvis_v1_val\.json, image 1, field 'neg_category_ids'"):
        Lvis(tmp_path)
