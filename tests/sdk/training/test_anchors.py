"""Anchors that fit the objects, and stay with the weights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

import sdk
from sdk import models
from sdk.datasets.transforms import Preprocessing
from sdk.training.anchors import anchor_fits, fit_anchors, object_shapes, shape_iou


def test_iou_of_shapes_is_that_of_boxes_with_one_centre():
    shapes, anchors = np.random.default_rng(0).uniform(1, 90, (2, 30, 2))
    boxes, others = (torch.from_numpy(np.concatenate([-s / 2, s / 2], axis=1)) for s in (shapes, anchors))
    assert np.allclose(shape_iou(shapes, anchors), box_iou(boxes, others).numpy())


def test_objects_have_the_size_that_the_network_sees(shapes):
    """Images of 64 x 64."""
    whole = object_shapes(shapes, Preprocessing(size=(64, 64)))
    assert len(whole) == sum(int((~shapes[i].ignore).sum()) for i in range(len(shapes)))
    assert np.allclose(object_shapes(shapes, Preprocessing(size=(128, 128))), 2 * whole)
    wide = object_shapes(shapes, Preprocessing(size=(128, 32), keep_ratio=False))
    assert np.allclose(wide, whole * (2, 0.5))


def test_taken_shapes_fit_more_objects_and_are_spread_by_size(tiny):
    shapes = sdk.datasets.Shapes(64, size=(64, 64))
    model, size = tiny(), Preprocessing(size=(64, 64))
    grid = model.bbox_head.anchors
    (before,) = fit_anchors(model, shapes, size)
    assert before.name == "bbox_head"
    assert before.unmatched > before.fitted
    (after,) = anchor_fits(model, shapes, size)
    assert after.unmatched == pytest.approx(before.fitted)
    new = model.bbox_head.anchors
    assert new.strides == grid.strides
    assert new.anchors_per_location == grid.anchors_per_location
    areas = [(base[:, 2:] - base[:, :2]).prod(1) for base in new.bases]
    assert all(lower.max() <= upper.min() + 1e-3 for lower, upper in pairwise(areas))
    centers = [(base[:, :2] + base[:, 2:]) / 2 for base in new.bases]
    assert all(torch.allclose(c, (b[:, :2] + b[:, 2:]) / 2, atol=1e-4) for c, b in zip(centers, grid.bases))


def test_they_stay_with_the_weights(tmp_path, capsys):
    shapes = sdk.datasets.Shapes(64, size=(64, 64))
    options = {"anchors": "auto", "max_steps": 1, "batch_size": 8, "workers": 0}
    run = sdk.fit(shapes, "retinanet_tiny_shapes", out=tmp_path / "run", **options)
    assert "which are taken" in capsys.readouterr().err
    trained = run.model.bbox_head.anchors.bases
    opened = sdk.Run(run.folder).model.bbox_head.anchors.bases
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(trained, opened))
    usual = models.create("retinanet_tiny_shapes", weights=None).bbox_head.anchors.bases
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(opened, usual))
    with pytest.raises(ValueError, match="anchors: auto needs a detector that matches anchors by their IoU"):
        sdk.fit(shapes, "fcos_tiny", out=tmp_path / "other", **options)
