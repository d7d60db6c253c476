"""The LVIS protocol against the official package."""

from __future__ import annotations

import json

import numpy as np
import pytest
from oracles import dataset_of, official_lvis

from sdk.datasets.errors import DatasetError
from sdk.evaluators.base import Evaluator
from sdk.evaluators.lvis import LvisEvaluator


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data/lvis_val_100"


@pytest.fixture(scope="module")
def content(folder):
    return json.loads((folder / "lvis_val_100.json").read_text())


@pytest.fixture(scope="module")
def evaluator(folder, content):
    evaluator = LvisEvaluator(dataset_of(content))
    evaluator.update_from_json(folder / "generated_results.json")
    return evaluator


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_official_figures(folder, evaluator, kind):
    assert isinstance(evaluator, Evaluator)
    report = evaluator.compute()
    expected = json.loads((folder / "expected_lvis_api.json").read_text())["results"][kind]
    assert {f"{kind}/{name}" for name in expected} == {name for name in report.metrics if name.startswith(kind)}
    for name, value in expected.items():
        assert report[f"{kind}/{name}"] == pytest.approx(value, abs=1e-9), name
    assert report.counts.images == 100
    assert report.counts.ground_truths == 977


def test_official_figures_by_class(folder, content, evaluator):
    pytest.importorskip("lvis")
    results = json.loads((folder / "generated_results.json").read_text())
    official = official_lvis(content, results, "bbox").eval["precision"]  # (T, R, K, A)
    order = np.argsort([c["id"] for c in content["categories"]])
    report = evaluator.compute()
    for place, label in enumerate(order):
        own = official[:, :, place, 0]
        value = report.per_class[content["categories"][label]["name"]]["bbox/AP"]
        if (own > -1).any():
            assert value.value == pytest.approx(own.mean(), abs=1e-12)
        else:
            assert value.value is None
            assert value.reason == "no ground truth"


def test_a_dataset_without_federated_columns(content):
    images = [{k: v for k, v in image.items() if not k.endswith("category_ids")} for image in content["images"]]
    with pytest.raises(DatasetError, match="neg_category_ids"):
        LvisEvaluator(dataset_of({**content, "images": images}))
