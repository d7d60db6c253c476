import json

import cv2
import numpy as np
from pycocotools.coco import COCO

from sdk.datasets import DeepFashion
from sdk.datasets.deepfashion import CLASSES


def test_annotations_without_boxes_and_category_zero(shared):
    root = shared / "data" / "fashionpedia_sample"
    dataset = DeepFashion(root)
    oracle = COCO(str(root / "data" / "sample.json"))
    assert (len(dataset), len(dataset.annotations)) == (2, 12)
    assert dataset.category_ids[0] == 0
    for index in range(2):
        sample = dataset[index]
        annotations = oracle.imgToAnns[sample.image_id]
        assert [dataset.category_ids[label] for label in sample.labels] == [a["category_id"] for a in annotations]
        for mask, box, annotation in zip(sample.masks.decode(), sample.boxes, annotations):
            np.testing.assert_array_equal(mask, oracle.annToMask(annotation))
            ys, xs = np.nonzero(mask)
            assert abs(box - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() <= 1


def test_official_layout(tmp_path):
    anno = tmp_path / "In-shop" / "Anno" / "segmentation"
    photo = tmp_path / "In-shop" / "Img" / "img" / "WOMEN" / "Dresses" / "id_1" / "01_1_front.jpg"
    anno.mkdir(parents=True)
    photo.parent.mkdir(parents=True)
    cv2.imwrite(str(photo), np.zeros((40, 60, 3), np.uint8))
    for split in ("train", "query", "gallery"):
        content = {
            "images": [{"id": 1, "file_name": "WOMEN/Dresses/id_1/01_1_front.jpg", "height": 40, "width": 60}],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
            "annotations": [],
        }
        (anno / f"DeepFashion_segmentation_{split}.json").write_text(json.dumps(content))
    dataset = DeepFashion(tmp_path)
    assert dataset.classes == CLASSES
    assert list(dataset.splits) == ["train", "val", "test"]
    assert dataset.val[0].size == (40, 60)
    assert len(DeepFashion(tmp_path, split="gallery")) == 1
