"""Small COCO folders written by the tests."""

import json
from pathlib import Path

import cv2
import numpy as np


def tiny_coco() -> dict:
    """Three images of 40 x 60: one with a polygon and a crowd region, one with a box alone, one without objects."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (7, 3, 12)],
        "categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 5,
                "bbox": [10, 5, 20, 15],
                "area": 300,
                "iscrowd": 0,
                "segmentation": [[10, 5, 30, 5, 30, 20, 10, 20]],
            },
            {
                "id": 2,
                "image_id": 3,
                "category_id": 2,
                "bbox": [1.5, 2.5, 30, 20],
                "area": 600,
                "iscrowd": 0,
                "segmentation": [],
            },
            {
                "id": 3,
                "image_id": 7,
                "category_id": 2,
                "bbox": [0, 0, 2, 40],
                "area": 80,
                "iscrowd": 1,
                "segmentation": {"size": [40, 60], "counts": [0, 80, 2320]},
            },
        ],
    }


def write_coco(folder: Path, content: dict, name: str = "train") -> Path:
    """A COCO folder with that annotation file and an image for each entry."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / name).mkdir(exist_ok=True)
    file = folder / "annotations" / f"instances_{name}.json"
    file.write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    for number in (7, 3, 12):
        cv2.imwrite(str(folder / name / f"{number}.png"), rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return file
