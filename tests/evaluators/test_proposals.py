"""Average recall of proposals against pycocotools with classes ignored."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from oracles import dataset_of
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sdk.evaluators.proposals import COUNTS, ProposalEvaluator
from sdk.models.structures import Proposals


@pytest.fixture(scope="module")
def content(shared):
    return json.loads((shared / "data/coco_val2014_100/annotations/instances_val2014_100.json").read_text())


def test_average_recall(content):
    rng = np.random.default_rng(0)
    boxes = {image["id"]: [] for image in content["images"]}
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        for _ in range(int(rng.integers(0, 40))):
            dx, dy, dw, dh = rng.normal(0, 0.15, 4) * [w, h, w, h]
            boxes[entry["image_id"]].append([x + dx, y + dy, max(w + dw, 1), max(h + dh, 1)])
    results, evaluator = [], ProposalEvaluator(dataset_of(content))
    for image_id, own in boxes.items():
        table = np.array(own, np.float64).reshape(-1, 4).round(1)
        scores = rng.integers(0, 50, len(table)) / 50
        results += [
            {"image_id": image_id, "category_id": 1, "bbox": b, "score": s}
            for b, s in zip(table.tolist(), scores.tolist())
        ]
        table[:, 2:] += table[:, :2]
        evaluator.update([image_id], [Proposals(torch.from_numpy(table), torch.from_numpy(scores))])
    assert max(map(len, boxes.values())) > 300
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        official = COCOeval(truth, truth.loadRes(results), "bbox")  # type: ignore[arg-type]
        official.params.useCats = 0
        official.params.maxDets = list(COUNTS)
        official.evaluate()
        official.accumulate()
    recall = official.eval["recall"]  # (T, K, A, M)
    report = evaluator.compute()
    for m, count in enumerate(COUNTS):
        assert report[f"proposals/AR@{count}"] == pytest.approx(recall[:, 0, 0, m].mean(), abs=1e-12)
    for a, size in enumerate("sml", 1):
        assert report[f"proposals/AR{size}@1000"] == pytest.approx(recall[:, 0, a, 2].mean(), abs=1e-12)
    matches = evaluator.matches()
    found = matches.detection >= 0
    assert (matches.truth[matches.detection[found]] == np.flatnonzero(found))[~matches.truth_ignored[found]].all()
