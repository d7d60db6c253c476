"""COCO and LVIS figures of random small datasets equal those of the official tools: crowds, ignored sizes, equal
scores, equal overlaps, missing classes, sparse ids, images without anything."""

from __future__ import annotations

import json
import logging

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import COCO_FIGURES, dataset_of, official_coco, official_lvis

from sdk.evaluators.coco import CocoEvaluator
from sdk.evaluators.lvis import LvisEvaluator

# Sides around the limits between small, medium and large.
SIDES = np.array([1, 7, 20, 31, 32, 33, 60, 95, 96, 97, 120])
SIZE = 160


def rectangle(x, y, w, h):
    mask = np.zeros((SIZE, SIZE), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    rle = coco_mask.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_boxes(rng, count, near):
    """Boxes on a grid; half of them are ``near`` ones, moved a little or not at all."""
    boxes = []
    for _ in range(count):
        if len(near) and rng.random() < 0.6:
            x, y, w, h = np.array(near[rng.integers(len(near))]) + rng.integers(-4, 5, 4) * (rng.random(4) < 0.4)
        else:
            w, h = rng.choice(SIDES, 2)
            x, y = rng.integers(0, 100, 2)
        x, y = int(np.clip(x, 0, SIZE - 1)), int(np.clip(y, 0, SIZE - 1))
        boxes.append([x, y, int(np.clip(w, 1, SIZE - x)), int(np.clip(h, 1, SIZE - y))])
    return boxes


@st.composite
def cases(draw):
    """(COCO and LVIS content, results with masks)"""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = draw(st.integers(1, 4))
    classes = draw(st.integers(1, 3))
    objects = draw(st.integers(0, 6))
    detections = draw(st.integers(1, 10))
    crowded = draw(st.booleans())
    levels = draw(st.sampled_from([2, 5, 1000]))
    image_ids = [int(i) for i in rng.permutation(50)[:images]]
    category_ids = [int(i) for i in rng.permutation(np.arange(1, 30))[:classes]]
    content = {
        "images": [
            {
                "id": i,
                "height": SIZE,
                "width": SIZE,
                "neg_category_ids": [c for c in category_ids if rng.random() < 0.3],
                "not_exhaustive_category_ids": [c for c in category_ids if rng.random() < 0.3],
            }
            for i in image_ids
        ],
        "categories": [{"id": c, "name": str(c), "frequency": str(rng.choice(list("rcf")))} for c in category_ids],
        "annotations": [],
    }
    results = []
    for image_id in image_ids:
        near = random_boxes(rng, int(rng.integers(0, objects + 1)), [])
        near += random_boxes(rng, int(rng.integers(0, 3)) if near else 0, near)
        for box in near:
            mask = rectangle(*box)
            if rng.random() < 0.3:
                x, y, w, h = box
                mask = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(category_ids)),
                    "bbox": box,
                    "area": float(box[2] * box[3] * rng.choice([0.0, 0.6, 1.0], p=[0.03, 0.27, 0.7])),
                    "iscrowd": int(crowded and rng.random() < 0.25),
                    "segmentation": mask,
                }
            )
        for box in random_boxes(rng, int(rng.integers(0, detections + 1)), near):
            score = float(rng.integers(levels) / levels)
            results.append({"image_id": image_id, "category_id": int(rng.choice(category_ids)), "score": score})
            results[-1] |= {"bbox": box, "segmentation": rectangle(*box)}
    if not results:
        box = [0, 0, 10, 10]
        results.append({"image_id": image_ids[0], "category_id": category_ids[0], "score": 0.5, "bbox": box})
        results[-1]["segmentation"] = rectangle(*box)
    rng.shuffle(content["annotations"])
    rng.shuffle(results)
    return content, results


def compare(evaluator, figures, kind, path, results):
    """Our figures of the results against the official ones, where -1 means that there is none."""
    path.write_text(json.dumps(results))
    evaluator.update_from_json(path)
    report = evaluator.compute()
    for name, expected in figures:
        value = report[f"{kind}/{name}"]
        if expected == -1:
            assert value is None, name
        else:
            assert value == pytest.approx(expected, abs=1e-10), name


def check(case, path):
    content, results = case
    dataset = dataset_of(content)
    boxes = [{k: v for k, v in r.items() if k != "segmentation"} for r in results]
    masks = [{k: v for k, v in r.items() if k != "bbox"} for r in results]
    logging.disable(logging.WARNING)
    try:
        for kind, own in (("bbox", boxes), ("segm", masks)):
            coco = official_coco(content, own, kind).stats
            compare(CocoEvaluator(dataset, kinds=(kind,)), list(zip(COCO_FIGURES, coco)), kind, path, own)
            lvis = official_lvis(content, own, kind).results.items()
            compare(LvisEvaluator(dataset, kinds=(kind,)), list(lvis), kind, path, own)
    finally:
        logging.disable(logging.NOTSET)


@given(cases())
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_random_datasets(tmp_path_factory, case):
    pytest.importorskip("lvis")
    check(case, tmp_path_factory.getbasetemp() / "results.json")


@pytest.mark.long
@given(cases())
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ten_thousand_random_datasets(tmp_path_factory, case):
    pytest.importorskip("lvis")
    check(case, tmp_path_factory.getbasetemp() / "results.json")
