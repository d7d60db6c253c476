import shutil

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

from sdk.datasets import DatasetError, WiderFace
from sdk.datasets.errors import DatasetWarning
from sdk.datasets.wider_face import read_list


def test_official_list(shared):
    root = shared / "data" / "wider_face"
    with pytest.warns(DatasetWarning, match="11 of 39708"):
        dataset = WiderFace(root)
    columns = dataset.annotations
    assert (len(dataset), len(columns), int(columns.ignore.sum())) == (3226, 39708, 585)
    assert int((columns.areas == 0).sum()) == 11
    assert dataset.ground_truth == root / "ground_truth"
    # Against the .mat, read without the adapter.
    content = loadmat(root / "wider_face_split" / "wider_face_val.mat")
    faces = {}
    for event, names, boxes in zip(content["event_list"], content["file_list"], content["face_bbx_list"]):
        for row in range(len(names[0])):
            faces[f"{event[0][0]}/{names[0][row][0][0]}"] = boxes[0][row][0]
    for index in range(len(dataset)):
        np.testing.assert_array_equal(columns.stated_boxes[columns.rows(index)], faces[columns.image_ids[index]])


def test_mat_equals_text(shared):
    root = shared / "data" / "wider_face"
    text = WiderFace(root).annotations
    mat = read_list(root, root / "wider_face_split" / "wider_face_val.mat", root / "WIDER_val" / "images").annotations
    places = {image_id: place for place, image_id in enumerate(mat.image_ids)}
    same = mat.select(np.array([places[image_id] for image_id in text.image_ids]))
    np.testing.assert_array_equal(same.stated_boxes, text.stated_boxes)
    np.testing.assert_array_equal(same.ignore, text.ignore)


def test_images_of_one_event(shared):
    dataset = WiderFace(shared / "data" / "wider_face", split="val_24")
    assert len(dataset) == 24
    for index in range(24):
        sample = dataset[index]
        assert sample.size == dataset.info(index).size
        assert str(sample.image_id).startswith("22--Picnic/")
    with pytest.warns(DatasetWarning, match="3202 of 3226"):
        assert len(WiderFace(shared / "data" / "wider_face", split="val", on_fault="skip")) == 24


def test_xml_layout(tmp_path):
    event = tmp_path / "WIDER_train" / "0--Parade"
    event.mkdir(parents=True)
    (tmp_path / "WIDER_train" / "Annotations").mkdir()
    cv2.imwrite(str(event / "0_Parade_1.jpg"), np.zeros((40, 60, 3), np.uint8))
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>20</ymax></bndbox>"
    (tmp_path / "WIDER_train" / "Annotations" / "0_Parade_1.xml").write_text(
        f"<annotation><folder>0--Parade</folder><object><name>face</name><difficult>0</difficult>{box}</object></annotation>"
    )
    dataset = WiderFace(tmp_path, split="train")
    assert dataset.info(0).image_id == "0--Parade/0_Parade_1"
    assert dataset[0].boxes.tolist() == [[2, 3, 12, 20]]


def test_images_without_faces_are_followed_by_zeros(tmp_path):
    lists = tmp_path / "wider_face_split"
    lists.mkdir()
    zeros = "0 0 0 0 0 0 0 0 0 0"
    text = f"0--P/a.jpg\n0\n{zeros}\n0--P/b.jpg\n1\n1 2 30 40 0 0 0 1 0 0\n"
    (lists / "wider_face_train_bbx_gt.txt").write_text(text)
    dataset = WiderFace(tmp_path)
    assert [len(dataset.annotations.labels[dataset.annotations.rows(i)]) for i in range(2)] == [0, 1]
    assert dataset.annotations.ignore.tolist() == [True]
    (lists / "wider_face_train_bbx_gt.txt").write_text(text.replace("\n1\n", "\n7\n"))
    with pytest.raises(DatasetError, match=r"wider_face_train_bbx_gt\.txt.*ends early"):
        WiderFace(tmp_path)
    (lists / "wider_face_train_bbx_gt.txt").write_text(text.replace("30", "nan"))
    with pytest.raises(DatasetError, match="line 6"):
        WiderFace(tmp_path)


def test_damaged_mat(shared, tmp_path):
    (tmp_path / "wider_face_split").mkdir()
    data = (shared / "data" / "wider_face" / "wider_face_split" / "wider_face_val.mat").read_bytes()
    (tmp_path / "wider_face_split" / "wider_face_val.mat").write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=r"wider_face_val\.mat"):
        WiderFace(tmp_path)
    shutil.rmtree(tmp_path / "wider_face_split")
    with pytest.raises(DatasetError, match="not a WIDER FACE folder"):
        WiderFace(tmp_path)
