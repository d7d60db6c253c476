"""Official figures, marks and views in a real database; and the App, served."""

from __future__ import annotations

import json
import time
import urllib.request

import numpy as np
import pytest
import torch

import sdk
from sdk.datasets import Shapes
from sdk.models.structures import Detections

pytestmark = pytest.mark.fiftyone


def perfect(shapes: Shapes) -> list[Detections]:
    """Every drawn object, and one box too many in every image."""
    found = []
    for i in range(len(shapes)):
        boxes = np.concatenate([shapes[i].boxes, np.float32([[0, 0, 3, 3]])])
        scores = torch.linspace(0.9, 0.6, len(boxes))
        found.append(Detections(torch.tensor(boxes), scores, torch.tensor(np.append(shapes[i].labels, 0))))
    return found


@pytest.fixture(scope="module")
def results(shared):
    return shared / "data" / "coco_val2014_100" / "results"


@pytest.fixture(scope="module")
def explored(fo, coco, results):
    return sdk.explore(coco, results / "instances_val2014_fakebbox100_results.json", launch=False)


def test_the_figures_are_official(explored, shared):
    # By pycocotools, given with the data.
    found = explored.load_evaluation_results("eval")
    assert found.mAP() == pytest.approx(0.5045806987249628, abs=1e-12)
    assert found.figures["bbox/AP50"] == pytest.approx(0.6969727247299577, abs=1e-12)
    assert found.figures["bbox/AR@100"] == pytest.approx(0.595352982877607, abs=1e-12)
    assert found.metrics()["bbox/AP75"] == pytest.approx(0.5729816669904824, abs=1e-12)


def test_masks_are_scored_and_shown(fo, coco, results):
    masks = results / "instances_val2014_fakesegm100_results.json"
    made = sdk.explore(coco, {"masks": masks}, name="with masks", launch=False)
    figures = made.load_evaluation_results("eval_masks").figures
    # By pycocotools, given with the data.
    assert figures["segm/AP"] == pytest.approx(0.3195452758576433, abs=1e-12)
    entries = json.loads(masks.read_bytes())
    assert made.count("masks.detections") == len(entries)
    assert made.count("masks.detections.mask") == len(entries)


def test_marks_are_those_of_the_matching(explored, coco, results):
    evaluator = coco.evaluator()
    evaluator = type(evaluator)(coco, kinds=("bbox",))
    evaluator.update_from_json(results / "instances_val2014_fakebbox100_results.json")
    matches = evaluator.matches("bbox", 0.5)
    said = explored.count_values("predictions.detections.eval")
    assert said["tp"] == matches.true_positive.sum()
    assert said["fp"] == matches.false_positive.sum()
    there = explored.count_values("ground_truth.detections.eval")
    assert there["fn"] == matches.missed.sum()
    assert sum(explored.values("eval_fn")) == matches.missed.sum()
    for sample in explored.limit(20):
        by_id = {label.id: label for label in sample.predictions.detections}
        for truth in sample.ground_truth.detections:
            if truth.eval == "tp":
                assert by_id[truth.eval_id].eval_id == truth.id
                assert by_id[truth.eval_id].label == truth.label


def test_labels_read_back_give_the_same_figures(explored):
    from sdk.fiftyone.evaluation import register

    register()
    again = explored.evaluate_detections("predictions", gt_field="ground_truth", eval_key="again", method="sdk-coco")
    first = explored.load_evaluation_results("eval")
    assert again.figures == pytest.approx(first.figures, abs=1e-9)
    assert explored.values("predictions.detections.again") == explored.values("predictions.detections.eval")
    explored.delete_evaluation("again")
    assert not [field for field in explored.get_field_schema(flat=True) if "again" in field]


def test_a_filtered_view_keeps_the_other_labels(explored, fo):
    from sdk.fiftyone.evaluation import register

    register()
    before = explored.count("predictions.detections")
    sure = explored.filter_labels("predictions", fo.ViewField("confidence") > 0.5, only_matches=False)
    shown = sure.count("predictions.detections")
    results = sure.evaluate_detections("predictions", gt_field="ground_truth", eval_key="sure", method="sdk-coco")
    assert 0 < shown < before
    assert explored.count("predictions.detections") == before
    assert sum(mark is not None for mark in explored.values("predictions.detections.sure", unwind=True)) == shown
    assert results.figures["bbox/AP"] < explored.load_evaluation_results("eval").figures["bbox/AP"]
    explored.delete_evaluation("sure")


def test_marking_takes_time_in_proportion(fo):
    """Saving samples whose labels were changed one by one takes a minute here."""
    shapes = Shapes(1, size=(64, 64), seed=8)
    random = np.random.default_rng(0)
    corners = random.uniform(0, 40, (800, 2))
    boxes = torch.tensor(np.concatenate([corners, corners + 10], axis=1))
    found = [Detections(boxes, torch.tensor(random.random(800)), torch.zeros(800, dtype=torch.int64))]
    start = time.process_time()
    made = sdk.explore(shapes, found, split="train", launch=False)
    assert time.process_time() - start < 15
    assert made.count_values("predictions.detections.eval")["fp"] > 50


def test_views_lead_to_the_failures(explored):
    marks = explored.count_values("predictions.detections.eval_error")
    assert explored.load_saved_view("class confusions").count("predictions.detections") == marks["classification"]
    assert explored.load_saved_view("duplicates").count("predictions.detections") == marks["duplicate"]
    missed = explored.load_saved_view("missed objects")
    assert set(missed.distinct("ground_truth.detections.eval")) == {"fn"}
    worst = explored.load_saved_view("worst images").values("eval_mistakes")
    assert worst == sorted(worst, reverse=True)
    assert set(explored.load_saved_view("small objects").distinct("ground_truth.detections.object_size")) == {"small"}
    empty = explored.load_saved_view("images without objects")
    assert empty.count("ground_truth.detections") == 0
    assert len(empty) == sum(len(explored[i].ground_truth.detections) == 0 for i in explored.values("id"))


def test_two_models_side_by_side(fo):
    shapes = Shapes(4, size=(64, 64), seed=3)
    found = perfect(shapes)
    worse = [one[:1] for one in found]
    made = sdk.explore(shapes, {"good": found, "Worse model": worse}, split="train", launch=False)
    objects = sum(len(shapes[i].boxes) for i in range(len(shapes)))
    assert made.count_values("good.detections.eval_good") == {"tp": objects, "fp": len(shapes)}
    assert made.count_values("worse_model.detections.eval_worse_model") == {"tp": len(shapes)}
    assert {"worst images (good)", "worst images (worse_model)"} <= set(made.list_saved_views())


def test_a_detector_is_run(fo, tiny):
    shapes = Shapes(3, size=(64, 64), seed=4)
    made = sdk.explore(shapes, tiny(), split="train", workers=0, launch=False)
    assert made.list_evaluations() == ["eval"]


def test_the_app_is_served_on_loopback(explored, fo, coco):
    session = sdk.explore(coco, port=5197)
    try:
        assert session.server_address == "127.0.0.1"
        with urllib.request.urlopen("http://127.0.0.1:5197/", timeout=20) as answer:
            assert b"FiftyOne" in answer.read()
    finally:
        session.close()
        fo.close_app()
