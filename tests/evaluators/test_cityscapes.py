"""The Cityscapes protocol against figures of the official script."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from oracles import ColumnDataset
from torchvision.ops import masks_to_boxes

from sdk.datasets import DatasetError
from sdk.datasets.base import ImageInfo
from sdk.datasets.cityscapes import CLASSES, read_maps
from sdk.evaluators.base import Evaluator
from sdk.evaluators.cityscapes import CityscapesEvaluator
from sdk.models.structures import Detections

ENDS = torch.tensor([0.0, 0.0, 1.0, 1.0])
"""Ours end beyond the last pixel, torchvision's on it."""


class Layout(ColumnDataset):
    """Ground truth in the official layout, with or without the photos."""

    root: Path

    def info(self, index: int) -> ImageInfo:
        return replace(super().info(index), path=str(self.root / self.annotations.image_files[index]))


@pytest.fixture(scope="module")
def dataset(shared):
    root = shared / "data/cityscapes"
    files = sorted((root / "gtFine/val").glob("*/*_gtFine_instanceIds.png"))
    index = read_maps(root, "val", {f.name.removesuffix("_gtFine_instanceIds.png"): f for f in files})
    dataset = Layout(index.annotations, index.classes, index.category_ids)
    dataset.root = root
    return dataset


@pytest.fixture(scope="module")
def results(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cityscapes")
    with tarfile.open(shared / "data/cityscapes/results.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "results"


@pytest.fixture(scope="module")
def predictions(results):
    ids = list(CLASSES.values())
    found = {}
    for file in sorted(results.glob("*_pred.txt")):
        rows = [line.split() for line in file.read_text().splitlines()]
        rows = [row for row in rows if int(row[1]) in ids]
        masks = [cv2.imread(str(file.parent / row[0]), cv2.IMREAD_GRAYSCALE) != 0 for row in rows]
        boxes = torch.zeros(len(rows), 4)
        found[file.name.removesuffix("_pred.txt")] = Detections(
            boxes=boxes,
            scores=torch.tensor([float(row[2]) for row in rows], dtype=torch.float64),
            labels=torch.tensor([ids.index(int(row[1])) for row in rows]),
            masks=torch.from_numpy(np.stack(masks)),
        )
    return found


def test_official_figures(shared, dataset, predictions):
    evaluators = [CityscapesEvaluator(dataset), CityscapesEvaluator(dataset)]
    assert isinstance(evaluators[0], Evaluator)
    for i, image_id in enumerate(dataset.annotations.image_ids.tolist()):
        evaluators[i % 2].update([image_id], [predictions[image_id]])
    evaluators[0].merge(evaluators[1])
    report = evaluators[0].compute()
    expected = json.loads((shared / "data/cityscapes/expected_cityscapesscripts.json").read_text())["results"]
    assert report["segm/AP"] == pytest.approx(expected["allAp"], abs=1e-9)
    assert report["segm/AP50"] == pytest.approx(expected["allAp50%"], abs=1e-9)
    for name, own in expected["classes"].items():
        assert report.per_class[name]["segm/AP"].value == pytest.approx(own["ap"], abs=1e-9), name
        assert report.per_class[name]["segm/AP50"].value == pytest.approx(own["ap50%"], abs=1e-9), name
    assert report.counts.images == 15
    matches = evaluators[0].matches()
    assert matches.true_positive.sum() + matches.missed.sum() == (~matches.truth_ignored).sum()


def test_unknown_void_is_said(dataset, predictions):
    evaluator = CityscapesEvaluator(ColumnDataset(dataset.annotations, dataset.classes, dataset.category_ids))
    image_id = dataset.annotations.image_ids.tolist()[0]
    evaluator.update([image_id], [predictions[image_id]])
    notes = " ".join(evaluator.compute().notes)
    assert "15 images have no gtFine_instanceIds.png" in notes
    assert "14 of 15 images were given no detections" in notes


def test_official_results_are_read(dataset, predictions, results):
    evaluator = CityscapesEvaluator(dataset)
    read = dict(evaluator.read_results(results))
    assert read.keys() == predictions.keys()
    for image_id, wanted in predictions.items():
        found = read[image_id]
        assert torch.equal(found.labels, wanted.labels)
        assert torch.equal(found.scores, wanted.scores)
        assert torch.equal(found.masks, wanted.masks)
        some = wanted.masks.flatten(1).any(dim=1)
        torch.testing.assert_close(found.boxes[some], masks_to_boxes(wanted.masks[some]).double() + ENDS)
        assert not found.boxes[~some].any()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("masks/none.png 24 0.5", r"line 1.*masks/none.png.*no readable image"),
        ("small.png 24 0.5", r"line 1.*small.png.*found \(4, 4\).*\(1024, 2048\)"),
        ("small.png 24", "line 1.*not an instance.*'small.png 24'"),
        ("small.png car 0.5", "line 1.*not an instance"),
    ],
)
def test_broken_results(dataset, tmp_path, line, told):
    first = dataset.info(0).image_id
    evaluator = CityscapesEvaluator(dataset)
    with pytest.raises(DatasetError, match=f"image {first}.*not one results file; found 'none'"):
        next(evaluator.read_results(tmp_path))
    cv2.imwrite(str(tmp_path / "small.png"), np.full((4, 4), 255, np.uint8))
    (tmp_path / f"{first}_pred.txt").write_text(line)
    with pytest.raises(DatasetError, match=told):
        next(evaluator.read_results(tmp_path))
    (tmp_path / f"{first}_again.txt").write_text("")
    with pytest.raises(DatasetError, match=r"not one results file; found .*_again\.txt"):
        next(evaluator.read_results(tmp_path))


def test_other_labels_are_left_out_and_counted(dataset, tmp_path):
    first = dataset.info(0).image_id
    cv2.imwrite(str(tmp_path / "all.png"), np.full((1024, 2048), 255, np.uint8))
    (tmp_path / f"{first}_pred.txt").write_text("all.png 7 0.5\nall.png 26 0.25\n")
    evaluator = CityscapesEvaluator(dataset)
    _, found = next(evaluator.read_results(tmp_path))
    assert found.scores.tolist() == [0.25]
    assert found.boxes.tolist() == [[0, 0, 2048, 1024]]
    assert any("7" in note for note in evaluator.compute().notes)
