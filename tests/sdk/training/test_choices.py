"""Classes, weights, averaging and batch size that are chosen instead of the recipe's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sdk
from sdk import models
from sdk.datasets import DatasetError
from sdk.datasets.combining import only_classes
from sdk.errors import RunError
from sdk.training.memory import Memory, largest_batch
from sdk.training.options import Options


def test_other_classes_are_background(shapes):
    names = list(shapes.classes)
    kept = only_classes(shapes, [names[2], names[0]])
    assert kept.classes == (names[2], names[0])
    assert kept.category_ids == (shapes.category_ids[2], shapes.category_ids[0])
    for index in range(len(shapes)):
        whole, part = shapes[index], kept[index]
        expected = [{2: 0, 0: 1}[label] for label in whole.labels.tolist() if label in (2, 0)]
        assert part.labels.tolist() == expected
        assert np.array_equal(part.boxes, whole.boxes[np.isin(whole.labels, (2, 0))])
        assert len(part.masks) == len(part.labels)
        assert sorted(kept.info(index).labels) == sorted(part.labels[~part.ignore])
    assert kept.fingerprint not in (shapes.fingerprint, only_classes(shapes, [names[0], names[2]]).fingerprint)
    with pytest.raises(DatasetError, match=r"circel.*expected circle"):
        only_classes(shapes, ["circel"])


def test_a_run_learns_and_scores_them_alone(tmp_path, shapes, tiny):
    run = sdk.fit(shapes, tiny(2), classes="square,circle", epochs=1, workers=0, out=tmp_path / "run")
    assert run.classes == ("square", "circle")
    report = sdk.evaluate(only_classes(shapes.val, run.classes), run, workers=0)
    (scored,) = [line["metrics"] for line in run.history if "metrics" in line]
    assert {name: value.value for name, value in report.metrics.items()} == pytest.approx(scored)


def test_weights_are_those_asked_for(tmp_path, shapes, tiny):
    start = {"epochs": 1, "max_steps": 1, "lr": 1e-12, "workers": 0, "batch_size": 8}
    first = sdk.fit(shapes, "retinanet_tiny_shapes", weights="none", seed=5, out=tmp_path / "first", **start)
    fresh = models.create("retinanet_tiny_shapes", num_classes=4, weights=None, seed=5)
    torch.testing.assert_close(first.model.bbox_head.retina_cls.weight, fresh.bbox_head.retina_cls.weight)
    again = sdk.fit(
        shapes, "retinanet_tiny_shapes", weights=str(first.weights_file), seed=6, out=tmp_path / "again", **start
    )
    torch.testing.assert_close(again.model.bbox_head.retina_cls.weight, fresh.bbox_head.retina_cls.weight)
    with pytest.raises(RunError, match="weights: is for names of the zoo"):
        sdk.fit(shapes, tiny(), weights="none")


def test_averaging_is_switched_off_and_on(tmp_path, shapes, tiny):
    options = {"epochs": 1, "max_steps": 1, "workers": 0}
    off = sdk.fit(shapes, tiny(ema_decay=0.9), ema=0, out=tmp_path / "off", **options)
    on = sdk.fit(shapes, tiny(), ema=0.5, out=tmp_path / "on", **options)
    assert [run.manifest["options"]["ema_decay"] for run in (off, on)] == [None, 0.5]
    with pytest.raises(ValueError, match="ema: expected a number of at most 1, found 2"):
        Options(ema=2)


def test_a_batch_that_fits():
    memory = Memory(weights=100, gradients=50, optimizer=50, batch=20, activations=180)  # 100 for each of two images
    assert largest_batch(memory, 2, 2000) == 8  # 0.7 x 2000 - 200 = 1200
    assert largest_batch(memory, 2, 2600) == 16
    assert largest_batch(memory, 2, 0) == 1
    assert largest_batch(memory, 2, 10**9) == 256


def test_the_batch_size_is_found_and_said(tmp_path, shapes, tiny, capsys, monkeypatch):
    monkeypatch.setattr("sdk.verbs.fit.free_memory", lambda device: 2_500_000)
    run = sdk.fit(shapes, tiny(), find_batch_size=True, epochs=1, workers=0, out=tmp_path / "run")
    found = run.manifest["options"]["batch_size"]
    assert found in (2, 4, 8)
    assert f"batch_size: {found} images fit into the memory of cpu" in capsys.readouterr().err
    assert run.manifest["options"]["lr"] == pytest.approx(0.02 * found / 4)
