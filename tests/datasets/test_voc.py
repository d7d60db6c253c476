import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sdk.datasets import DatasetError, Voc
from sdk.datasets.errors import DatasetWarning


def stated(file) -> list[tuple]:
    """(name, difficult, four numbers) of a file, read without the adapter."""
    objects = []
    for element in ElementTree.parse(file).getroot().iter("object"):
        ends = [float(element.findtext(f"bndbox/{end}")) for end in ("xmin", "ymin", "xmax", "ymax")]
        objects.append((element.findtext("name"), element.findtext("difficult"), *ends))
    return objects


def test_flat_folder(shared):
    folder = shared / "data" / "bccd"
    with pytest.warns(DatasetWarning, match="1 of 2805"):
        dataset = Voc(folder)
    assert dataset.classes == ("Platelets", "RBC", "WBC")
    assert list(dataset.splits) == ["train", "val", "test"]
    sizes = [len(dataset.train), len(dataset.val), len(dataset.test)]
    assert sizes == [205, 87, 72]
    total = np.zeros(3, int)
    for part in dataset.splits.values():
        total += np.bincount(part.annotations.labels, minlength=3)
    assert total.tolist() == [361, 4155, 372]
    for index in range(0, len(dataset), 20):
        sample, info = dataset[index], dataset.info(index)
        assert sample.size == info.size == (480, 640)
        objects = stated(folder / "Annotations" / f"{sample.image_id}.xml")
        assert [dataset.classes[label] for label in sample.labels] == [name for name, *_ in objects]
        # Pixels are counted from 1 with both ends in the box; samples count from 0 and exclude the end.
        expected = np.array([values for _, _, *values in objects]) - [1, 1, 0, 0]
        np.testing.assert_array_equal(sample.boxes, expected)


def test_boxes_without_area_are_left_out_of_samples_only(shared):
    dataset = Voc(shared / "data" / "bccd", split="trainval")
    flat = np.flatnonzero(~dataset.annotations.usable)
    names = dataset.annotations.annotation_ids[flat].tolist()
    assert [name.split()[0] for name in names] == ["BloodImage_00338", "BloodImage_00343"]
    index = dataset.annotations.image_ids.tolist().index("BloodImage_00338")
    assert len(dataset[index].labels) == len(dataset.annotations.labels[dataset.annotations.rows(index)]) - 1


def test_difficult_objects_are_ignored(shared):
    folder = shared / "data" / "voc_100"
    dataset = Voc(folder)
    assert len(dataset) == 100
    assert len(dataset.annotations) == 273
    assert int(dataset.annotations.ignore.sum()) == 38
    assert len(dataset.classes) == 20
    columns = dataset.annotations
    for index in range(100):
        objects = stated(folder / "Annotations" / f"{columns.image_ids[index]}.xml")
        rows = columns.rows(index)
        assert columns.stated_boxes[rows].tolist() == [list(values) for _, _, *values in objects]
        assert columns.ignore[rows].tolist() == [difficult == "1" for _, difficult, *_ in objects]


def test_years(shared):
    root = shared / "data" / "voc_devkit_2"
    both = Voc(root, split="trainval")
    assert both.annotations.image_ids.tolist() == ["VOC2007/000001", "VOC2012/000001"]
    assert len(Voc(root, years=2007, split="trainval")) == 1
    union = Voc.trainval(2007, root) + Voc.trainval(2012, root)
    assert len(union) == 2
    assert len({union[i].image_id for i in range(2)}) == 2
    assert union.annotations.image_ids.tolist() == [union.info(i).image_id for i in range(2)]
    np.testing.assert_array_equal(union[1].boxes, both[1].boxes)
    with pytest.raises(DatasetError, match="VOC2010"):
        Voc(root, years=2010)
    with pytest.raises(DatasetError, match="split"):
        Voc(root, split="nothing")


def write(folder, objects: str, size="<size><width>60</width><height>40</height></size>", name="a"):
    import cv2

    (folder / "Annotations").mkdir(exist_ok=True, parents=True)
    (folder / "JPEGImages").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "JPEGImages" / f"{name}.png"), np.zeros((40, 60, 3), np.uint8))
    (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")


def test_size_comes_from_the_image_where_the_file_has_none(tmp_path):
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox>"
    write(tmp_path, f"<object><name>thing</name>{box}</object>", size="")
    dataset = Voc(tmp_path)
    assert dataset.info(0).size == (40, 60)
    assert dataset[0].boxes.tolist() == [[0, 0, 60, 40]]
    assert dataset.classes == ("thing",)


def test_faults_name_file_and_object(tmp_path):
    box = "<bndbox><xmin>9</xmin><ymin>1</ymin><xmax>6</xmax><ymax>40</ymax></bndbox>"
    write(tmp_path, f"<object><name>thing</name>{box}</object>")
    with pytest.raises(DatasetError, match=r"a\.xml, object 1 'thing', field 'bndbox'"):
        Voc(tmp_path)
    with pytest.warns(DatasetWarning):
        assert Voc(tmp_path, on_fault="repair")[0].boxes.tolist() == [[5, 0, 9, 40]]
    write(tmp_path, "<object>", name="b")
    with pytest.raises(DatasetError, match=r"b\.xml.*not an annotation in XML|a\.xml"):
        Voc(tmp_path)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("c\n")
    with pytest.raises(DatasetError, match=r"train\.txt, line 1"):
        Voc(tmp_path, split="train", on_fault="skip")
