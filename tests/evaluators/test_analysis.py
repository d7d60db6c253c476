"""Error breakdown, confusion matrix and best thresholds.

The costs are those of tidecv 1.0.1 on the same data, where no prediction names a class without ground truth: it also
averages over classes that have none.
"""

from __future__ import annotations

import json

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import tidecv
import torch
from oracles import dataset_of

from sdk.evaluators.analysis import ERRORS, confusion_matrix, error_breakdown
from sdk.evaluators.cityscapes import CityscapesEvaluator
from sdk.evaluators.coco import CocoEvaluator
from sdk.evaluators.confidence import best_thresholds
from sdk.evaluators.voc import VocEvaluator
from sdk.models.structures import Detections


@pytest.fixture(scope="module", params=["bbox", "segm"])
def real(shared, request):
    folder = shared / "data/coco_val2014_100"
    content = json.loads((folder / "annotations/instances_val2014_100.json").read_text())
    evaluator = CocoEvaluator(dataset_of(content), kinds=(request.param,))
    evaluator.update_from_json(folder / f"results/instances_val2014_fake{request.param}100_results.json")
    return request.param, evaluator


def tide(content, results, kind, iou=0.5):
    """What tidecv says of the same dictionaries: AP and costs by our names."""
    found, sought = tidecv.Data("found"), tidecv.Data("sought")
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}

    def shape(entry):
        if kind == "bbox":
            return {"box": entry["bbox"]}
        given, size = entry["segmentation"], sizes[entry["image_id"]]
        if isinstance(given, list):
            return {"mask": coco_mask.merge(coco_mask.frPyObjects(given, *size))}
        return {"mask": coco_mask.frPyObjects(given, *size) if isinstance(given["counts"], list) else given}

    for image in sorted(sizes):
        sought.add_image(image, str(image))
    for entry in content["annotations"]:
        add = sought.add_ignore_region if entry["iscrowd"] else sought.add_ground_truth
        add(entry["image_id"], entry["category_id"], **shape(entry))
    for entry in results:
        found.add_detection(entry["image_id"], entry["category_id"], entry["score"], **shape(entry))
    mode = tidecv.TIDE.BOX if kind == "bbox" else tidecv.TIDE.MASK
    run = tidecv.TIDE().evaluate(sought, found, pos_threshold=iou, mode=mode)
    names = {
        "ClassError": "classification", "BoxError": "localization", "OtherError": "both", "DuplicateError": "duplicate",
        "BackgroundError": "background", "MissedError": "missed", "FalsePositiveError": "false positives",
        "FalseNegativeError": "false negatives",
    }  # fmt: skip
    costs = {**run.fix_main_errors(), **run.fix_special_errors()}
    return run.ap / 100, {names[error.__name__]: cost / 100 for error, cost in costs.items()}


def known_classes_only(content, results):
    """The results of classes that have ground truth."""
    known = {entry["category_id"] for entry in content["annotations"] if not entry["iscrowd"]}
    return [entry for entry in results if entry["category_id"] in known]


@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_costs_on_real_results(shared, tmp_path, real, iou):
    kind, whole = real
    folder = shared / "data/coco_val2014_100"
    content = json.loads((folder / "annotations/instances_val2014_100.json").read_text())
    results = json.loads((folder / f"results/instances_val2014_fake{kind}100_results.json").read_text())
    results = known_classes_only(content, results)
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), kinds=(kind,))
    evaluator.update_from_json(tmp_path / "results.json")
    _, wanted = tide(content, results, kind, iou)
    errors = error_breakdown(evaluator.compared(kind, iou))
    assert errors is not None
    costs = {**errors.costs, **errors.special}
    assert set(costs) == set(wanted)
    for name, cost in wanted.items():
        assert costs[name] == pytest.approx(cost, abs=1e-9), name
    assert sum(cost > 0 for cost in wanted.values()) > 3
    # Predictions of classes without ground truth change no class that has some.
    everything = error_breakdown(whole.compared(kind, 0.5))
    assert everything is not None
    assert everything.ap == pytest.approx(whole.compute()[f"{kind}/AP50"], abs=1e-12)
    assert ((everything.kind >= 0) == whole.matches(kind).false_positive).all()


def random_scene(seed, digits):
    """24 images with objects of four classes, crowds, and detections of every kind of error."""
    draw = np.random.default_rng(seed)
    images = [{"id": i, "height": 200, "width": 200} for i in range(1, 25)]
    annotations, results = [], []

    def detect(image, category, box):
        box = [*box[:2], *np.maximum(box[2:], 1)]
        score = round(float(draw.random()), digits)
        results.append({"image_id": image, "category_id": category, "bbox": [float(v) for v in box], "score": score})

    for image in range(1, 25):
        for _ in range(draw.poisson(3)):
            box = np.concatenate([draw.uniform(0, 150, 2), draw.uniform(5, 50, 2)])
            category = int(draw.integers(1, 5))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box.tolist(),
                "area": float(box[2] * box[3]), "iscrowd": int(draw.random() < 0.1),
            })  # fmt: skip
            for _ in range(draw.integers(0, 4)):
                said = category if draw.random() < 0.7 else int(draw.integers(1, 5))
                detect(image, said, box + draw.normal(0, draw.choice([1, 4, 10]), 4))
        for _ in range(draw.poisson(1)):
            detect(image, int(draw.integers(1, 5)), np.concatenate([draw.uniform(0, 150, 2), draw.uniform(5, 50, 2)]))
    categories = [{"id": c, "name": f"class {c}"} for c in range(1, 5)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return content, known_classes_only(content, results)


# Two digits make many equal scores.
@pytest.mark.parametrize("digits", [16, 2])
@pytest.mark.parametrize("seed", range(4))
def test_costs_are_those_of_tidecv(tmp_path, seed, digits):
    content, results = random_scene(seed, digits)
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    evaluator.update_from_json(tmp_path / "results.json")
    report = evaluator.compute()
    average = dict.fromkeys(report.errors["bbox"].costs, 0.0)
    for iou in (0.5, 0.75):
        _, wanted = tide(content, results, "bbox", iou)
        errors = report.errors_at(iou)
        assert errors is not None
        for name, cost in wanted.items():
            assert errors.costs[name] == pytest.approx(cost, abs=1e-9), (name, iou)
            average[name] += cost / 2
    assert report.average_error_costs((0.5, 0.75)) == pytest.approx(average, abs=1e-9)


def test_costs_by_class_and_group(tmp_path):
    """What the mean over classes gains is the mean of what classes gain; groups share out what there is."""
    content, results = random_scene(0, 16)
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    evaluator.update_from_json(tmp_path / "results.json")
    errors = evaluator.compute().errors["bbox"]
    assert len(errors.by_class) == 4
    for name in (*ERRORS, "missed"):
        gains = [row[name] for row in errors.by_class.values()]
        assert np.mean(gains) == pytest.approx(errors.costs[name], abs=1e-3), name
    for grouping, rows in errors.by_group.items():
        assert sum(row["objects"] for row in rows.values()) == sum(not e["iscrowd"] for e in content["annotations"])
        assert any(0 < row["missed"] <= errors.costs["missed"] + 1e-12 for row in rows.values()), grouping
        for row in rows.values():
            assert all(row[name] <= errors.costs[name] + 1e-9 for name in ("background", "missed"))


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
    threshold, f1 = best_thresholds(evaluator.compared("bbox"))[0]
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
