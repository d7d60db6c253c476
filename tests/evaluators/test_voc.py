"""The VOC protocol against figures of the official procedure."""

from __future__ import annotations

import json

import pytest
import torch

from sdk.datasets.voc import Voc
from sdk.evaluators.voc import VocEvaluator
from sdk.models.structures import Detections


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data/voc_100"


@pytest.fixture(scope="module")
def dataset(folder):
    return Voc(folder)


@pytest.fixture(scope="module")
def expected(folder):
    return json.loads((folder / "expected.json").read_text())["voc_eval"]


def lines(folder):
    """(image id, class, score, corners) of the detections, in the devkit's coordinates."""
    names = (folder / "voc.names").read_text().split()
    for file in sorted((folder / "dets/abs_xyx2y2").glob("*.txt")):
        for line in file.read_text().splitlines():
            label, score, *box = line.split()
            yield file.stem, names[int(label)], score, box


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("results")
    for image, name, score, box in lines(folder):
        with (target / f"comp4_det_val_{name}.txt").open("a") as file:
            file.write(f"{image} {score} {' '.join(box)}\n")
    return target


@pytest.mark.parametrize(("metric", "key"), [("11point", "07_11point"), ("area", "allpoint")])
def test_official_figures(dataset, expected, results, metric, key):
    evaluator = VocEvaluator(dataset, metric=metric, ious=(0.5, 0.75))
    for image_id, found in evaluator.read_results(results):
        evaluator.update([image_id], [found])
    report = evaluator.compute()
    assert ("2007" in report.protocol) == (metric == "11point")
    for iou in (0.5, 0.75):
        entry = expected[f"iou{iou}_{key}"]
        assert report[f"bbox/mAP{iou * 100:g}"] == pytest.approx(entry["mAP"], abs=1e-9)
        matches = evaluator.matches(iou=iou)
        for label, name in enumerate(dataset.classes):
            own = matches.found.labels == label
            if name in entry["per_class"]:
                want = entry["per_class"][name]
                assert report.per_class[name][f"bbox/AP{iou * 100:g}"].value == pytest.approx(want["AP"], abs=1e-9)
                assert matches.true_positive[own].sum() == want["TP"]
                assert matches.false_positive[own].sum() == want["FP"]
    assert report.counts.images == 100
    assert report.counts.ground_truths == 273
    assert report.counts.ignored == 38
    assert report.counts.detections == 452


def test_detections_in_memory_and_ranks(folder, dataset, expected):
    by_image = {image_id: [] for image_id in dataset.annotations.image_ids.tolist()}
    for image, name, score, box in lines(folder):
        x1, y1, x2, y2 = map(float, box)
        by_image[image].append((x1 - 1, y1 - 1, x2, y2, float(score), dataset.classes.index(name)))
    evaluators = [VocEvaluator(dataset), VocEvaluator(dataset)]
    for i, (image_id, rows) in enumerate(by_image.items()):
        table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
        found = Detections(boxes=table[:, :4], scores=table[:, 4], labels=table[:, 5].long())
        evaluators[i % 2].update([image_id], [found])
    evaluators[0].merge(evaluators[1])
    assert evaluators[0].compute()["bbox/mAP50"] == pytest.approx(expected["iou0.5_allpoint"]["mAP"], abs=1e-9)


def test_wrong_settings(dataset):
    with pytest.raises(ValueError, match="'area' or '11point'"):
        VocEvaluator(dataset, metric="voc07")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between 0 and 1"):
        VocEvaluator(dataset, ious=(50,))
