import json

import cv2
import numpy as np
import pytest

from sdk.datasets import Cityscapes, DatasetError
from sdk.datasets.cityscapes import CLASSES, draw_polygons
from sdk.datasets.errors import DatasetWarning


def test_instance_maps(shared):
    root = shared / "data" / "cityscapes"
    dataset = Cityscapes(root)
    assert dataset.classes == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert (len(dataset), len(dataset.val), dataset.test) == (8, 15, None)
    single = sum(int((~part.annotations.crowd).sum()) for part in dataset.splits.values())
    assert single == 555
    for part, name in ((dataset, "train"), (dataset.val, "val")):
        columns = part.annotations
        for index in range(0, len(part), 4):
            image_id = columns.image_ids[index]
            file = root / "gtFine" / name / image_id.split("_")[0] / f"{image_id}_gtFine_instanceIds.png"
            pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            ids = [i for i in np.unique(pixels) if (i if i < 1000 else i // 1000) in CLASSES.values()]
            rows = columns.rows(index)
            assert columns.areas[rows].tolist() == [np.count_nonzero(pixels == i) for i in ids]
            assert columns.ignore[rows].tolist() == [i < 1000 for i in ids]
            assert [part.category_ids[label] for label in columns.labels[rows]] == [
                i if i < 1000 else i // 1000 for i in ids
            ]


def test_samples_where_photos_are(shared):
    with pytest.warns(DatasetWarning, match="6 of 8 images are missing"):
        dataset = Cityscapes(shared / "data" / "cityscapes", split="train", on_fault="skip")
    sample = dataset[0]
    assert sample.image.shape == (1024, 2048, 3)
    masks = sample.masks.decode()
    for mask, box in zip(masks, sample.boxes):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    with pytest.raises(DatasetError, match=r"leftImg8bit\.png: file is missing"):
        Cityscapes(shared / "data" / "cityscapes", split="train")[2]


def polygons(*objects) -> dict:
    return {"imgHeight": 40, "imgWidth": 60, "objects": [{"label": label, "polygon": p} for label, p in objects]}


def square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def test_polygons_stand_in_for_maps(shared, tmp_path):
    real = draw_polygons(shared / "data" / "cityscapes" / "polygons_sample" / "aa_000000_gtFine_polygons.json")
    assert np.unique(real).tolist() == [0, 26000]
    content = polygons(("car", square(2, 2, 20)), ("car", square(30, 2, 9)), ("pole", square(2, 2, 5)),
                       ("persongroup", square(40, 20, 10)), ("license plate", square(30, 2, 3)))  # fmt: skip
    folder = tmp_path / "gtFine" / "val" / "aa"
    folder.mkdir(parents=True)
    (folder / "aa_0_0_gtFine_polygons.json").write_text(json.dumps(content))
    columns = Cityscapes(tmp_path).annotations
    assert columns.labels.tolist() == [0, 2, 2]
    assert columns.crowd.tolist() == [True, False, False]
    # The pole hides a corner of the first car; the plate hides nothing. The outline belongs to a drawn polygon.
    assert columns.areas.tolist() == [11 * 11, 21 * 21 - 6 * 6, 10 * 10]


@pytest.mark.parametrize(
    "content",
    [[], {}, {"imgHeight": 40, "imgWidth": -1, "objects": []}, polygons(("car", [[0, 0]])),
     polygons(("car", [[0, 0], [1e30, 0], [5, 5]])), polygons(("car", None)), polygons(("car", [["a", 2]] * 3))],
)  # fmt: skip
def test_faulty_polygons_name_the_file(tmp_path, content):
    folder = tmp_path / "gtFine" / "val" / "aa"
    folder.mkdir(parents=True)
    (folder / "aa_0_0_gtFine_polygons.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="aa_0_0_gtFine_polygons"):
        Cityscapes(tmp_path)


def test_converted_file(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "frankfurt/a_leftImg8bit.png", "height": 40, "width": 60}],
        "categories": [{"id": 24, "name": "person"}, {"id": 26, "name": "car"}],
        "annotations": [],
    }
    file = tmp_path / "instancesonly_filtered_gtFine_val.json"
    file.write_text(json.dumps(content))
    dataset = Cityscapes(annotations=file, images=tmp_path)
    assert dataset.category_ids == (24, 26)
    content["categories"].append({"id": 3, "name": "cow"})
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="cow"):
        Cityscapes(annotations=file, images=tmp_path)
