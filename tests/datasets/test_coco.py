import json
import pickle

import cv2
import numpy as np
import pytest
from coco_files import tiny_coco, write_coco
from pycocotools.coco import COCO

from sdk.datasets import Coco, DatasetError
from sdk.datasets.errors import DatasetWarning


def test_columns_equal_pycocotools_on_real_annotations(shared):
    folder = shared / "data" / "coco_val2014_100"
    file = folder / "annotations" / "instances_val2014_100.json"
    oracle = COCO(str(file))
    dataset = Coco(annotations=file, images=folder / "val2014")
    assert len(dataset) == 100
    assert dataset.category_ids == tuple(sorted(oracle.cats))
    assert dataset.classes == tuple(oracle.cats[i]["name"] for i in sorted(oracle.cats))
    columns = dataset.annotations
    assert len(columns) == 839
    assert int(columns.crowd.sum()) == 9
    for index, image_id in enumerate(columns.image_ids.tolist()):
        expected = oracle.imgToAnns[image_id]
        rows = columns.rows(index)
        assert columns.annotation_ids[rows].tolist() == [a["id"] for a in expected]
        assert columns.stated_boxes[rows].tolist() == [a["bbox"] for a in expected]
        assert columns.areas[rows].tolist() == [a["area"] for a in expected]
        for row, annotation in zip(range(rows.start, rows.stop), expected):
            assert columns.segmentation(row)["counts"] == oracle.annToRLE(annotation)["counts"]


def test_samples_of_real_images(shared):
    folder = shared / "data" / "coco_val2014_100"
    with pytest.warns(DatasetWarning, match="only val2014_54"):
        dataset = Coco(folder)
    assert len(dataset) == 54
    assert list(dataset.splits) == ["val"]
    assert dataset.val is dataset
    oracle = COCO(str(folder / "annotations" / "instances_val2014_54.json"))
    for index in range(len(dataset)):
        sample, info = dataset[index], dataset.info(index)
        assert sample.size == info.size
        assert sample.image.dtype == np.uint8
        expected = oracle.imgToAnns[sample.image_id]
        masks = sample.masks.decode()
        assert len(masks) == len(sample.boxes) == len(expected)
        for mask, annotation in zip(masks, expected):
            np.testing.assert_array_equal(mask, oracle.annToMask(annotation))
        assert info.labels.tolist() == sample.labels[~sample.ignore].tolist()
    pixels = cv2.cvtColor(cv2.imread(str(dataset.path(0))), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(dataset[0].image, pixels)


def test_images_without_objects_and_sparse_ids(coco_folder):
    dataset = Coco(coco_folder)
    assert [dataset.info(i).image_id for i in range(3)] == [7, 3, 12]
    assert dataset.category_ids == (2, 5)
    assert dataset.classes == ("dog", "cat")
    sample = dataset[0]
    assert sample.labels.tolist() == [1, 0]
    assert sample.ignore.tolist() == [False, True]
    assert sample.boxes.tolist() == [[10, 5, 30, 20], [0, 0, 2, 40]]
    assert sample.masks.decode().sum((1, 2)).tolist() == [300, 80]
    assert len(dataset[2].labels) == 0
    assert dataset[2].masks.decode().shape == (0, 40, 60)
    assert dataset[1].masks.decode().sum() == 0
    with pytest.raises(IndexError):
        dataset[3]


def test_class_subset_keeps_images_and_takes_the_given_order(coco_folder):
    dataset = Coco(coco_folder, classes=["cat"])
    assert len(dataset) == 3
    assert dataset.category_ids == (5,)
    assert dataset[0].labels.tolist() == [0]
    assert Coco(coco_folder, classes=["cat", "dog"])[0].labels.tolist() == [0, 1]
    with pytest.raises(DatasetError, match="bird"):
        Coco(coco_folder, classes=["bird"])


def test_without_annotations(tmp_path):
    content = tiny_coco()
    del content["annotations"]
    write_coco(tmp_path, content)
    dataset = Coco(tmp_path)
    assert len(dataset) == 3
    assert len(dataset[0].labels) == 0


def test_several_splits(coco_folder):
    content = tiny_coco()
    content["images"] = content["images"][:2]
    write_coco(coco_folder, content, "val")
    dataset = Coco(coco_folder)
    assert len(dataset) == 3
    assert dataset.train is dataset
    assert len(dataset.val) == 2
    assert dataset.test is None
    with pytest.raises(DatasetError, match="test"):
        Coco(coco_folder, split="test")


def test_class_maps(coco_folder, tmp_path):
    expected = np.arange(2400, dtype=np.uint8).reshape(40, 60)
    for number in (7, 3, 12):
        cv2.imwrite(str(tmp_path / f"{number}.png"), expected)
    np.testing.assert_array_equal(Coco(coco_folder, semantic=tmp_path)[0].semantic, expected)


def test_fingerprint_depends_on_content_alone(coco_folder, tmp_path):
    first = Coco(coco_folder).fingerprint
    write_coco(tmp_path / "elsewhere", tiny_coco())
    assert Coco(tmp_path / "elsewhere").fingerprint == first
    content = tiny_coco()
    content["annotations"][0]["bbox"][0] = 11
    write_coco(tmp_path / "changed", content)
    assert Coco(tmp_path / "changed").fingerprint != first
    assert Coco(coco_folder, classes=["dog", "cat"]).fingerprint == first


def test_missing_boxes_come_from_masks(tmp_path):
    content = tiny_coco()
    for annotation in (content["annotations"][0], content["annotations"][2]):
        del annotation["bbox"], annotation["area"]
    write_coco(tmp_path, content)
    columns = Coco(tmp_path).annotations
    assert columns.boxes[0].tolist() == [10, 5, 30, 20]
    assert columns.boxes[1].tolist() == [0, 0, 2, 40]
    assert columns.areas[:2].tolist() == [300, 80]


def test_image_faults_name_the_file(coco_folder):
    dataset = Coco(coco_folder)
    file = coco_folder / "train" / "7.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"7\.png.*truncated"):
        dataset[0]
    file.unlink()
    with pytest.raises(DatasetError, match=r"7\.png.*missing"):
        dataset[0]
    with pytest.warns(DatasetWarning, match="1 of 3 images are missing"):
        assert len(Coco(coco_folder, on_fault="skip")) == 2
    cv2.imwrite(str(file), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"\(20, 30\).*\(40, 60\)"):
        dataset[0]


@pytest.mark.parametrize("pickled", [False, True])
def test_every_way_to_open_again(coco_folder, pickled):
    dataset = Coco(coco_folder)
    again = pickle.loads(pickle.dumps(dataset)) if pickled else Coco(coco_folder)
    assert again.fingerprint == dataset.fingerprint
    assert again[0].boxes.tolist() == dataset[0].boxes.tolist()
    if pickled:
        assert len(pickle.dumps(dataset)) < 5000


def test_faults_are_skipped_with_a_warning_or_repaired(tmp_path):
    content = tiny_coco()
    content["annotations"][0]["segmentation"] = [[1, 2, 3]]
    content["annotations"][1]["category_id"] = 99
    write_coco(tmp_path, content)
    with pytest.raises(DatasetError, match=r"annotation 1.*segmentation"):
        Coco(tmp_path)
    with pytest.warns(DatasetWarning, match="2 fault"):
        dataset = Coco(tmp_path, on_fault="skip")
    assert dataset.annotations.annotation_ids.tolist() == [3]
    with pytest.warns(DatasetWarning, match="2 fault"):
        dataset = Coco(tmp_path, on_fault="repair")
    assert dataset.annotations.annotation_ids.tolist() == [1, 3]
    assert [fault.field for fault in dataset.faults] == ["segmentation[0]", "category_id"]


def test_nothing_to_open(tmp_path):
    with pytest.raises(DatasetError, match="missing"):
        Coco(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no annotation file"):
        Coco(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "categories": []}))
    with pytest.raises(DatasetError, match="no categories"):
        Coco(tmp_path)
