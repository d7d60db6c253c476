"""The FiftyOne dataset that exploring makes, in a real database."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from sdk.datasets import Shapes
from sdk.models.structures import Detections

import sdk

fo = pytest.importorskip("fiftyone")

pytestmark = pytest.mark.fiftyone


def test_ground_truth_and_matches(tiny, monkeypatch):
    shapes = Shapes(4, size=(64, 64))
    sample = shapes[0]

    def perfect(trained, images):
        """Every drawn object of the image, and one box too many."""
        own = next(shapes[i] for i in range(len(shapes)) if np.array_equal(shapes[i].image, images[0]))
        boxes = np.concatenate([own.boxes, np.float32([[0, 0, 3, 3]])])
        labels = np.append(own.labels, 0)
        return [Detections(torch.tensor(boxes), torch.linspace(0.9, 0.5, len(boxes)), torch.tensor(labels))]

    # The attribute sdk.explore is the verb; its module is found by name.
    monkeypatch.setattr(importlib.import_module("sdk.explore"), "detect", perfect)
    made = sdk.explore(shapes, tiny(), split="train", launch=False)
    try:
        objects = sum(len(shapes[i].boxes) for i in range(len(shapes)))
        assert made.count_values("predictions.detections.eval") == {"tp": objects, "fp": len(shapes)}
        assert made.count_values("ground_truth.detections.eval") == {"tp": objects}
        first = made.first().ground_truth.detections
        assert [label.label for label in first] == [shapes.classes[label] for label in sample.labels]
        for label, (x1, y1, x2, y2) in zip(first, sample.boxes.tolist()):
            assert label.bounding_box == pytest.approx([x1 / 64, y1 / 64, (x2 - x1) / 64, (y2 - y1) / 64])
        assert set(made.list_saved_views()) == {"false positives", "missed"}
    finally:
        made.delete()
