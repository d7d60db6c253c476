"""Cuts, calibration, FROC and optimal LRP, each against its definition written out as loops, or a closed form."""

from __future__ import annotations

import json

import numpy as np
import pytest
from oracles import dataset_of
from test_analysis import coco_content, random_scene, scene

from sdk.evaluators.coco import CocoEvaluator
from sdk.evaluators.confidence import FALSE_ALARMS, best_thresholds, calibration, froc, optimal_lrp, precision_at


@pytest.fixture(scope="module", params=[16, 2])
def compared(request, tmp_path_factory):
    content, results = random_scene(5, request.param)
    path = tmp_path_factory.mktemp("results") / "results.json"
    path.write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    evaluator.update_from_json(path)
    return evaluator.compared()


def counts_at(compared, label, score):
    """True and all detections of a class from a score on, the IoU of the true ones, and its objects."""
    matches = compared.matches
    own = (matches.found.labels == label) & (matches.found.scores >= score) & ~matches.ignored
    true = own & matches.true_positive
    return int(true.sum()), int(own.sum()), matches.iou[true], int(compared.positives[label])


def scores_of(compared, label):
    found = compared.matches.found
    return np.unique(found.scores[found.labels == label])[::-1]


def test_best_thresholds_and_lrp_by_search(compared):
    thresholds, lrps = best_thresholds(compared), optimal_lrp(compared)
    assert set(thresholds) == set(lrps) == set(range(4))
    for label in range(4):
        f1, lrp = {}, {}
        for score in scores_of(compared, label):
            true, count, ious, objects = counts_at(compared, label, score)
            f1[score] = 2 * true / (count + objects)
            lrp[score] = (((1 - ious) / 0.5).sum() + count - true + objects - true) / (count + objects - true)
        assert thresholds[label][1] == pytest.approx(max(f1.values()))
        assert f1[thresholds[label][0]] == pytest.approx(max(f1.values()))
        one = lrps[label]
        assert one.lrp == pytest.approx(min(lrp.values()))
        true, count, ious, objects = counts_at(compared, label, one.threshold)
        parts = (one.localization, one.false_positive, one.false_negative)
        assert parts == pytest.approx((np.mean(1 - ious), 1 - true / count, 1 - true / objects))


def test_precision_at_a_recall_by_search(compared):
    table = precision_at(compared, 0.4)
    for label in range(4):
        reached = {}
        for score in scores_of(compared, label):
            true, count, _, objects = counts_at(compared, label, score)
            if true / objects >= 0.4:
                reached[score] = true / count
        assert (label in table) == bool(reached)
        if reached:
            assert table[label][0] == pytest.approx(max(reached.values()))
            assert reached[table[label][1]] == pytest.approx(max(reached.values()))
    assert precision_at(compared, 1.0) == {}
    with pytest.raises(ValueError, match="above 0 and up to 1, found 40"):
        precision_at(compared, 40)


@pytest.mark.parametrize("by_class", [False, True])
def test_froc_by_search(compared, by_class):
    found = np.atleast_2d(froc(compared, by_class))
    for row, labels in enumerate([[label] for label in range(4)] if by_class else [list(range(4))]):
        wanted = np.zeros(len(FALSE_ALARMS))
        for score in np.unique(compared.matches.found.scores):
            parts = [counts_at(compared, label, score) for label in labels]
            true, count, objects = (sum(part[i] for part in parts) for i in (0, 1, 3))
            fits = (count - true) / 24 <= np.array(FALSE_ALARMS)
            wanted[fits] = np.maximum(wanted[fits], true / objects)
        assert found[row] == pytest.approx(wanted)
    assert found[0].max() > 0


def test_calibration_of_scores_that_are_shares(tmp_path):
    """Of the detections of score s a share p is true by construction: ECE is the mean of |s - p| over detections."""
    truths, found = [], []
    for step, (score, share) in enumerate(((0.9, 0.5), (0.5, 0.5), (0.1, 0.3))):
        for i in range(10):
            box = [10 * i, 10 * step, 8, 8]
            if i < share * 10:
                truths.append((1, box, 0))
            found.append((1, box, score))
    evaluator = scene(tmp_path, truths, found, categories=(1,))
    one = calibration(evaluator.compared())
    assert one is not None
    assert one.ece == pytest.approx((0.4 + 0.0 + 0.2) / 3)
    assert one.worst == pytest.approx(0.4)
    filled = one.counts > 0
    assert one.confidence[filled] == pytest.approx([0.1, 0.5, 0.9])
    assert one.accuracy[filled] == pytest.approx([0.3, 0.5, 0.5])
    report = evaluator.compute()
    assert report.calibration["bbox"].ece == one.ece
    assert report.to_dict()["calibration"]["bbox"]["ece"] == one.ece


def test_calibration_of_what_is_no_probability(tmp_path):
    assert calibration(scene(tmp_path, [(1, [0, 0, 9, 9], 0)], [(1, [0, 0, 9, 9], 7.5)]).compared()) is None
    assert calibration(scene(tmp_path, [(1, [0, 0, 9, 9], 0)], []).compared()) is None


def test_nothing_found_and_nothing_there(tmp_path):
    nothing = scene(tmp_path, [(1, [0, 0, 9, 9], 0)], []).compared()
    assert optimal_lrp(nothing)[0].lrp == 1
    assert best_thresholds(nothing) == {}
    assert froc(nothing).tolist() == [0] * len(FALSE_ALARMS)
    nowhere = CocoEvaluator(dataset_of(coco_content([], (1, 2))), kinds=("bbox",))
    assert np.isnan(froc(nowhere.compared())).all()
    report = nowhere.compute()
    assert report.errors == {}
    assert "no ground truth" in str(report)
