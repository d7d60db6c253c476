"""The WIDER FACE protocol against figures of the official procedure."""

from __future__ import annotations

import tarfile

import pytest
from oracles import ColumnDataset
from scipy.io import loadmat

from sdk.datasets.errors import DatasetError
from sdk.datasets.index import Builder
from sdk.evaluators.base import Evaluator
from sdk.evaluators.wider_face import WiderFaceEvaluator

EXPECTED = {"easy": 0.9448373912694071, "medium": 0.9244706568389409, "hard": 0.8153250447873874}


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data/wider_face/ground_truth"


@pytest.fixture(scope="module")
def dataset(folder):
    content = loadmat(folder / "wider_face_val.mat")
    builder = Builder()
    for event, images in zip(content["event_list"], content["file_list"]):
        for image in images[0]:
            builder.image(f"{event[0][0]}/{image[0][0]}", (0, 0), "")
    return ColumnDataset(builder.finish(masks=False), ("face",), (1,))


def test_official_figures(shared, folder, dataset, tmp_path):
    with tarfile.open(shared / "data/wider_face/predictions.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    evaluator = WiderFaceEvaluator(dataset, folder)
    assert isinstance(evaluator, Evaluator)
    for image_id, found in evaluator.read_results(tmp_path / "widerface_txt"):
        evaluator.update([image_id], [found])
    report = evaluator.compute()
    for name, value in EXPECTED.items():
        assert report[f"bbox/AP_{name}"] == pytest.approx(value, abs=1e-9), name
    assert report.counts.images == 3226
    assert report.counts.ground_truths == 39708
    assert report.main == "bbox/AP_easy"
    matches = evaluator.matches()
    assert matches.true_positive.sum() + matches.missed.sum() == (~matches.truth_ignored).sum()


def test_no_detections(folder, dataset):
    report = WiderFaceEvaluator(dataset, folder).compute()
    assert report["bbox/AP_hard"] == 0
    assert any("no detections" in note for note in report.notes)


def test_missing_ground_truth(dataset, tmp_path):
    with pytest.raises(DatasetError, match=r"wider_easy_val\.mat"):
        WiderFaceEvaluator(dataset, tmp_path)
    with pytest.raises(DatasetError, match="ground_truth"):
        WiderFaceEvaluator(dataset)
