"""Weighted figures: equal weights give the report's own, and an image that counts twice is one that is there twice."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from oracles import dataset_of, official_coco
from test_analysis import random_scene

from sdk.evaluators.coco import Coco, CocoEvaluator
from sdk.evaluators.voc import VocEvaluator
from sdk.evaluators.weighting import in_blocks


def scored(tmp_path, content, results, make):
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = make(dataset_of(content))
    evaluator.update_from_json(tmp_path / "results.json")
    return evaluator


def repeated(content, results, weights):
    """The same with each image as often as its weight."""
    images, annotations, found = [], [], []
    for image, weight in zip(content["images"], weights):
        for turn in range(weight):
            name = image["id"] * 100 + turn
            images.append({**image, "id": name})
            for entry in content["annotations"]:
                if entry["image_id"] == image["id"]:
                    annotations.append({**entry, "id": len(annotations) + 1, "image_id": name})
            found += [{**entry, "image_id": name} for entry in results if entry["image_id"] == image["id"]]
    return {**copy.deepcopy(content), "images": images, "annotations": annotations}, found


MAKERS = {
    "coco": lambda dataset: CocoEvaluator(dataset, kinds=("bbox",)),
    "varied": lambda dataset: CocoEvaluator(dataset, ("bbox",), Coco((2, 5), areas={"t": (0, 500)}, agnostic=True)),
    "voc": lambda dataset: VocEvaluator(dataset, ious=(0.5, 0.7)),
    "voc 2007": lambda dataset: VocEvaluator(dataset, metric="11point"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_weight_is_a_number_of_copies(tmp_path, make):
    content, results = random_scene(1, 16)
    evaluator = scored(tmp_path, content, results, make)
    draw = np.random.default_rng(0)
    weights = np.stack([np.ones(24, int), *(draw.multinomial(24, np.ones(24) / 24) for _ in range(4))], axis=1)
    found = evaluator.weighable().values(in_blocks(weights, 2))
    for column in range(weights.shape[1]):
        report = scored(tmp_path, *repeated(content, results, weights[:, column]), make).compute()
        for name, (value, _) in found.items():
            wanted = report[f"bbox/{name}"]
            assert value[column] == pytest.approx(np.nan if wanted is None else wanted, abs=1e-10, nan_ok=True), name
        for label, figures in enumerate(report.per_class.values()):
            name = next(iter(found))
            own = figures.get(f"bbox/{name}", figures.get(f"bbox/{name.removeprefix('m')}"))
            assert own is not None
            wanted = np.nan if own.value is None else own.value
            assert found[name][1][label, column] == pytest.approx(wanted, abs=1e-10, nan_ok=True)


def test_against_pycocotools_with_repeated_images(tmp_path):
    content, results = random_scene(2, 16)
    weights = np.random.default_rng(1).multinomial(24, np.ones(24) / 24)
    evaluator = scored(tmp_path, content, results, MAKERS["coco"])
    found = evaluator.weighable().values(in_blocks(weights[:, None]))
    stats = official_coco(*repeated(content, results, weights), "bbox").stats
    assert [float(value[0]) for value, _ in found.values()] == pytest.approx(
        [np.nan if stat == -1 else stat for stat in stats], abs=1e-10, nan_ok=True
    )


def test_an_image_of_weight_zero_is_not_there(tmp_path):
    content, results = random_scene(4, 16)
    evaluator = scored(tmp_path, content, results, MAKERS["coco"])
    value, by_class = evaluator.weighable().values(in_blocks(np.zeros((24, 1))), ["AP"])["AP"]
    assert np.isnan(value).all()
    assert np.isnan(by_class).all()
