"""The COCO protocol against pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from oracles import COCO_FIGURES, dataset_of, official_coco

from sdk.datasets.errors import DatasetError
from sdk.evaluators.base import Evaluator
from sdk.evaluators.coco import CocoEvaluator
from sdk.models.structures import Detections

AP = {"bbox": 0.5045806987249628, "segm": 0.3195452758576433}


@pytest.fixture(scope="module")
def content(shared):
    return json.loads((shared / "data/coco_val2014_100/annotations/instances_val2014_100.json").read_text())


@pytest.fixture(scope="module")
def results(shared):
    folder = shared / "data/coco_val2014_100/results"
    return {kind: folder / f"instances_val2014_fake{kind}100_results.json" for kind in ("bbox", "segm")}


def as_detections(content, entries) -> tuple[list[int], list[Detections]]:
    """The entries of a results file as a detector would give them."""
    labels = {c["id"]: i for i, c in enumerate(content["categories"])}
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    by_image = {i: [] for i in sizes}
    for entry in entries:
        by_image[entry["image_id"]].append(entry)
    detections = []
    for image_id, own in by_image.items():
        masks = None
        boxes = [e["bbox"] if "bbox" in e else coco_mask.toBbox(e["segmentation"]).tolist() for e in own]
        if own and "segmentation" in own[0]:
            masks = torch.from_numpy(np.stack([coco_mask.decode(e["segmentation"]) for e in own])).bool()
        elif not own:
            masks = torch.zeros(0, *sizes[image_id], dtype=torch.bool)
        boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
        detections.append(
            Detections(
                boxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
                scores=torch.tensor([e["score"] for e in own], dtype=torch.float64),
                labels=torch.tensor([labels[e["category_id"]] for e in own], dtype=torch.int64),
                masks=masks,
            )
        )
    return list(by_image), detections


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("way", ["file", "memory", "ranks"])
def test_the_twelve_figures(content, results, kind, way):
    dataset = dataset_of(content)
    evaluator = CocoEvaluator(dataset, kinds=(kind,))
    assert isinstance(evaluator, Evaluator)
    if way == "file":
        evaluator.update_from_json(results[kind])
    else:
        ids, detections = as_detections(content, json.loads(results[kind].read_text()))
        half = len(ids) // 2 if way == "ranks" else len(ids)
        for i in reversed(range(half)):
            evaluator.update([ids[i]], [detections[i]])
        other = CocoEvaluator(dataset, kinds=(kind,))
        other.update(ids[half:], detections[half:])
        evaluator.merge(other)
    report = evaluator.compute()
    assert report[f"{kind}/AP"] == pytest.approx(AP[kind], abs=1e-12)
    official = official_coco(content, json.loads(results[kind].read_text()), kind).stats
    for name, expected in zip(COCO_FIGURES, official):
        assert report[f"{kind}/{name}"] == pytest.approx(expected, abs=1e-12), name
    assert report.main == f"{kind}/AP"
    assert report.counts.images == 100
    assert report.counts.ground_truths == 839
    assert report.counts.ignored == 9
    assert not report.notes
