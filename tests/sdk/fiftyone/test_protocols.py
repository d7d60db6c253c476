"""Each of the six datasets with its own protocol: official figures in FiftyOne, and nothing lost on the way.

What evaluators say is checked against the official tools in ``tests/evaluators``; here FiftyOne has to say the same.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as coco_mask
from roundtrip import assert_same

import sdk
from sdk.datasets import Cityscapes, Coco, DeepFashion, Lvis, Voc, WiderFace, from_fiftyone
from sdk.evaluators.analysis import ERRORS
from sdk.fiftyone.evaluation import register
from sdk.inference.given import read_predictions

pytestmark = pytest.mark.fiftyone


@dataclass
class Case:
    """A dataset, what was predicted for it, and figures that the official tool gives for just that."""

    dataset: Any
    what: Path
    official: dict[str, float] = field(default_factory=dict)


def coco(data: Path, folder: Path) -> Case:
    """Masks with their boxes, which the file alone leaves out."""
    root = data / "coco_val2014_100"
    entries = json.loads((root / "results/instances_val2014_fakesegm100_results.json").read_bytes())
    for entry in entries:
        entry["bbox"] = coco_mask.toBbox(entry["segmentation"]).tolist()
    (folder / "results.json").write_text(json.dumps(entries))
    dataset = Coco(annotations=root / "annotations/instances_val2014_100.json", images=root / "val2014")
    # By pycocotools, given with the data.
    official = {"segm/AP": 0.3195452758576433, "segm/AP50": 0.5622883972521636}
    return Case(dataset, folder / "results.json", official)


def lvis(data: Path, folder: Path) -> Case:
    root = data / "lvis_val_100"
    dataset = Lvis(annotations=root / "lvis_val_100.json", images=root / "val2014")
    expected = json.loads((root / "expected_lvis_api.json").read_text())["results"]
    official = {f"{kind}/{name}": value for kind in expected for name, value in expected[kind].items()}
    return Case(dataset, root / "generated_results.json", official)


def voc(data: Path, folder: Path) -> Case:
    """Detections in the devkit's own files."""
    root = data / "voc_100"
    names = (root / "voc.names").read_text().split()
    for file in sorted((root / "dets/abs_xyx2y2").glob("*.txt")):
        for line in file.read_text().splitlines():
            label, *numbers = line.split()
            with open(folder / f"comp4_det_val_{names[int(label)]}.txt", "a") as results:
                results.write(f"{file.stem} {' '.join(numbers)}\n")
    return Case(Voc(root), folder, {"bbox/mAP50": 0.6138747922842811})


def cityscapes(data: Path, folder: Path) -> Case:
    """Detections in the official form."""
    root = data / "cityscapes"
    with tarfile.open(root / "results.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    expected = json.loads((root / "expected_cityscapesscripts.json").read_text())["results"]
    official = {"segm/AP": expected["allAp"], "segm/AP50": expected["allAp50%"]}
    return Case(Cityscapes(root, split="val"), folder / "results", official)


def wider_face(data: Path, folder: Path) -> Case:
    """The images of one event; the official figures are for all."""
    root = data / "wider_face"
    with tarfile.open(root / "predictions.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return Case(WiderFace(root, split="val_24"), folder / "widerface_txt")


def deepfashion(data: Path, folder: Path) -> Case:
    root = data / "fashionpedia_sample"
    return Case(DeepFashion(root), root / "data/fake_results.json")


CASES: list[Callable[[Path, Path], Case]] = [coco, lvis, voc, cityscapes, wider_face, deepfashion]


@pytest.fixture(scope="module", params=CASES, ids=lambda make: make.__name__)
def case(request, shared, tmp_path_factory) -> Case:
    return request.param(shared / "data", tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def explored(fo, case):
    return sdk.explore(case.dataset, case.what, name=f"official-{type(case.dataset).__name__}", launch=False)


def test_the_figures_are_official(case, explored):
    figures = explored.load_evaluation_results("eval").figures
    report = read_predictions(case.dataset, case.what).compute()
    assert figures == {name: figure.value for name, figure in report.metrics.items()}
    for name, value in case.official.items():
        assert figures[name] == pytest.approx(value, abs=1e-9), name


def test_what_a_protocol_does_not_have_is_no_number(case, explored):
    results = explored.load_evaluation_results("eval")
    assert results.mAP() == next(iter(results.figures.values()))
    # Cityscapes and WIDER FACE draw no curve of a class.
    assert (results.mAR() is None) == (case.dataset.protocol in ("cityscapes", "wider_face"))


def test_labels_read_back_give_the_same(case, explored):
    register()
    method = f"sdk-{case.dataset.protocol}"
    again = explored.evaluate_detections("predictions", gt_field="ground_truth", eval_key="again", method=method)
    first = explored.load_evaluation_results("eval")
    assert again.figures == pytest.approx(first.figures, abs=1e-9)
    assert again.protocol == first.protocol
    for objects in ("predictions.detections", "ground_truth.detections"):
        assert explored.values(f"{objects}.again") == explored.values(f"{objects}.eval")
    explored.delete_evaluation("again")


def test_marks_add_up(case, explored):
    evaluator = read_predictions(case.dataset, case.what)
    matches = evaluator.matches(evaluator.compute().main.partition("/")[0])
    said = explored.count_values("predictions.detections.eval")
    there = explored.count_values("ground_truth.detections.eval")
    assert said.get("tp", 0) == matches.true_positive.sum()
    assert said.get("fp", 0) == matches.false_positive.sum()
    assert there.get("fn", 0) == matches.missed.sum()
    assert there.get("ignored", 0) == matches.truth_ignored.sum()


def test_every_false_detection_has_its_error(case, explored):
    results = explored.load_evaluation_results("eval")
    objects = "predictions.detections"
    marks, kinds = explored.values([f"{objects}.eval", f"{objects}.eval_error"], unwind=True)
    assert [kind is not None for kind in kinds] == [mark == "fp" for mark in marks]
    assert set(results.errors) == {*ERRORS, "missed"}
    assert results.metrics()["AP50 lost to missed"] == results.errors["missed"]
    assert explored.load_saved_view("background").count(objects) == kinds.count("background")


def test_confident_is_where_precision_and_recall_are_best(case, explored):
    """By trying every score."""
    objects = "predictions.detections"
    marks, scores = explored.values([f"{objects}.eval", f"{objects}.confidence"], unwind=True)
    counted = [(score, mark == "tp") for score, mark in zip(scores, marks) if mark in ("tp", "fp")]
    sought = sum(mark in ("tp", "fn") for mark in explored.values("ground_truth.detections.eval", unwind=True))

    def f1(least: float) -> float:
        kept = [true for score, true in counted if score >= least]
        return 2 * sum(kept) / (len(kept) + sought)

    best = explored.load_evaluation_results("eval").best_score
    assert f1(best) == max(f1(least) for least in {score for score, _ in counted})
    shown = explored.load_saved_view("confident predictions")
    assert shown.count("predictions.detections") == sum(score >= best for score in scores)
    assert shown.count("ground_truth.detections") == len(case.dataset.annotations)


def test_nothing_is_lost_on_the_way(case, explored):
    assert_same(case.dataset, from_fiftyone(explored))
