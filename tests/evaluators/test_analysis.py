"""Error breakdown, confusion matrix and best thresholds.

The counts by kind and the costs are those of tidecv 1.0.1 on the same files, averaged over the classes that have ground
truth (it also averages over those that have none). It reads recalls at x / 100 and orders equal scores by itself: the
costs agree to a few thousandths.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from oracles import dataset_of

from sdk.evaluators.analysis import ERRORS, confusion_matrix, error_breakdown
from sdk.evaluators.cityscapes import CityscapesEvaluator
from sdk.evaluators.coco import CocoEvaluator
from sdk.evaluators.figures import best_thresholds
from sdk.evaluators.voc import VocEvaluator
from sdk.models.structures import Detections

TIDE = {
    "bbox": {
        "classification": (83, 0.1674), "localization": (1, 0.0025), "both": (0, 0), "duplicate": (1, 0.0002),
        "background": (0, 0), "missed": (97, 0.1051),
    },
    "segm": {
        "classification": (76, 0.1369), "localization": (82, 0.1260), "both": (7, 0.0035), "duplicate": (0, 0),
        "background": (4, 0.0029), "missed": (109, 0.0947),
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=["bbox", "segm"])
def real(shared, request):
    folder = shared / "data/coco_val2014_100"
    content = json.loads((folder / "annotations/instances_val2014_100.json").read_text())
    evaluator = CocoEvaluator(dataset_of(content), kinds=(request.param,))
    evaluator.update_from_json(folder / f"results/instances_val2014_fake{request.param}100_results.json")
    return request.param, evaluator


def test_breakdown_of_real_results(real):
    kind, evaluator = real
    errors = error_breakdown(evaluator.compared(kind))
    assert errors is not None
    assert errors.ap == pytest.approx(evaluator.compute()[f"{kind}/AP50"], abs=1e-12)
    for name, (count, cost) in TIDE[kind].items():
        assert errors.counts[name] == count, name
        assert errors.costs[name] == pytest.approx(cost, abs=2e-3), name
    false = evaluator.matches(kind).false_positive
    assert ((errors.kind >= 0) == false).all()


def coco_content(truths, categories, masks=False):
    """An image of 100 x 100; truths: (category, box, crowd), with the whole box as mask or without masks."""
    content = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": crowd}
            for i, (c, b, crowd) in enumerate(truths, 1)
        ],
    }
    for entry in content["annotations"] if masks else ():
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return content


def scene(tmp_path, truths, found, categories=(1, 2)):
    """A scored image of 100 x 100; truths: (category, box, crowd), found: (category, box, score)."""
    content = coco_content(truths, categories)
    results = [{"image_id": 1, "category_id": c, "bbox": b, "score": s} for c, b, s in found]
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    evaluator.update_from_json(tmp_path / "results.json")
    return evaluator


def test_each_kind_of_error(tmp_path):
    truths = [
        (1, [0, 0, 20, 20], 0),
        (1, [40, 0, 20, 20], 0),
        (2, [0, 40, 20, 20], 0),
        (2, [70, 70, 20, 20], 0),
        (1, [40, 40, 20, 20], 1),
    ]
    found = [
        (1, [0, 0, 20, 20], 0.9),  # right
        (1, [0, 0, 20, 18], 0.8),  # the same again
        (1, [0, 40, 20, 20], 0.7),  # another class
        (1, [40, 0, 8, 20], 0.6),  # IoU 0.4
        (2, [40, 0, 8, 20], 0.5),  # another class and IoU 0.4
        (2, [0, 80, 10, 10], 0.4),  # nothing there
        (1, [42, 42, 10, 10], 0.3),  # in the crowd
    ]
    evaluator = scene(tmp_path, truths, found)
    errors = error_breakdown(evaluator.compared("bbox"))
    assert errors is not None
    named = [ERRORS[k] if k >= 0 else None for k in errors.kind]
    assert named == [None, "duplicate", "classification", "localization", "both", "background", None]
    assert errors.truth.tolist() == [-1, 0, 2, 1, -1, -1, -1]
    assert errors.missed.tolist() == [False, False, False, True, False]
    # Class 1: the right one, then three false ones; half of two objects is found. Class 2: nothing is.
    assert errors.ap == pytest.approx(51 / 101 / 2)
    # Found where it was too small: precision 1, 2/4 by then, so 51 recalls at 1 and 50 at 0.5.
    assert errors.costs["localization"] == pytest.approx(50 / 101 * 0.5 / 2)
    # The wrong class set right is the best detection of class 2, half of whose objects it finds.
    assert errors.costs["classification"] == pytest.approx(51 / 101 / 2)
    # One object fewer in class 2, where nothing is found anyhow.
    assert errors.costs["missed"] == 0

    matrix = confusion_matrix(evaluator.compared("bbox"), ("a", "b"), score=0.35)
    assert matrix.table.tolist() == [[1, 0, 1], [1, 0, 1], [2, 2, 0]]
    threshold, f1 = best_thresholds(evaluator.scored("bbox"))[0]
    assert threshold == 0.9
    assert f1 == pytest.approx(2 / 3)


def test_other_protocols_name_the_same_errors(tmp_path):
    """Without crowds and overlaps at the very limits they match alike."""
    truths = [(1, [0, 0, 20, 20], 0), (1, [30, 0, 20, 20], 0), (2, [60, 0, 20, 20], 0), (2, [0, 60, 20, 20], 0)]
    found = [
        (1, [0, 0, 20, 20], 0.9),
        (1, [0, 0, 20, 18], 0.8),  # again
        (1, [60, 0, 20, 20], 0.7),  # of class 2
        (1, [30, 0, 20, 8], 0.6),  # too small
        (2, [30, 0, 20, 8], 0.5),  # too small and of class 1
        (1, [80, 80, 10, 10], 0.4),  # on nothing
    ]
    coco = scene(tmp_path, truths, found)
    voc = VocEvaluator(dataset_of(coco_content(truths, (1, 2))))
    voc.update_from_json(tmp_path / "results.json")
    cityscapes = CityscapesEvaluator(dataset_of(coco_content(truths, (1, 2), masks=True)))
    masks = torch.zeros(len(found), 100, 100, dtype=torch.bool)
    for mask, (_, (x, y, w, h), _) in zip(masks, found):
        mask[y : y + h, x : x + w] = True
    boxes = torch.tensor([[x, y, x + w, y + h] for _, (x, y, w, h), _ in found], dtype=torch.float64)
    scores = torch.tensor([score for *_, score in found], dtype=torch.float64)
    labels = torch.tensor([category - 1 for category, *_ in found])
    cityscapes.update([1], [Detections(boxes, scores, labels, masks)])
    wanted = error_breakdown(coco.compared())
    assert wanted is not None
    assert [ERRORS[k] for k in wanted.kind if k >= 0] == [
        "duplicate", "classification", "localization", "both", "background",
    ]  # fmt: skip
    for evaluator in (voc, cityscapes):
        errors = error_breakdown(evaluator.compared())
        assert errors is not None
        for name in ("kind", "truth", "missed"):
            assert getattr(errors, name).tolist() == getattr(wanted, name).tolist(), name
        assert (errors.ap, errors.costs, errors.counts) == (wanted.ap, wanted.costs, wanted.counts)
        matrix = confusion_matrix(evaluator.compared(), ("a", "b"))
        # Greedily by score and whatever the class: one right, one taken for the other class, two too small ones and a
        # duplicate on nothing, as is the one on the background.
        assert matrix.table.tolist() == [[1, 0, 1], [1, 0, 1], [3, 1, 0]]


def test_matches(tmp_path):
    truths = [(1, [0, 0, 20, 20], 0), (1, [50, 50, 20, 20], 0)]
    found = [(1, [0, 0, 20, 16], 0.5), (1, [0, 0, 20, 20], 0.4)]
    evaluator = scene(tmp_path, truths, found)
    matches = evaluator.matches(iou=0.75)
    assert matches.truth.tolist() == [0, -1]
    assert matches.iou.tolist() == pytest.approx([0.8, 0])
    assert matches.detection.tolist() == [0, -1]
    assert matches.missed.tolist() == [False, True]
    assert evaluator.matches(iou=0.85).truth.tolist() == [-1, 0]
    with pytest.raises(ValueError, match=r"0\.50, 0\.55"):
        evaluator.matches(iou=0.3)


def test_nothing_to_break_down(tmp_path):
    evaluator = scene(tmp_path, [], [(1, [0, 0, 20, 16], 0.5)])
    assert error_breakdown(evaluator.compared("bbox")) is None
    assert confusion_matrix(evaluator.compared("bbox"), ("a", "b")).table.sum() == 1
    assert not evaluator.matches().missed.any()
    nothing = scene(tmp_path, [(1, [0, 0, 20, 20], 0)], [])
    errors = error_breakdown(nothing.compared("bbox"))
    assert errors is not None
    assert errors.counts["missed"] == 1
    assert errors.costs["missed"] == pytest.approx(1)
    assert np.array_equal(confusion_matrix(nothing.compared("bbox"), ("a", "b")).table[0], [0, 0, 1])
