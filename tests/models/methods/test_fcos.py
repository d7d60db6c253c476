"""Which object a point of FCOS stands for, point by point."""

from __future__ import annotations

import math

import pytest
import torch

from sdk.models.dense.points import centerness_of
from sdk.models.methods.fcos import point_targets
from sdk.models.structures import Targets


def by_hand(points, ranges, boxes, labels, reach):
    result = []
    for index, (x, y) in enumerate(points):
        choice = None
        for box, label in zip(boxes, labels, strict=True):
            sides = (x - box[0], y - box[1], box[2] - x, box[3] - y)
            inside = min(sides) > 0 and ranges[index][0] <= max(sides) <= ranges[index][1]
            if reach is not None:
                far = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2))
                inside = inside and far < reach[index]
            area = (box[2] - box[0]) * (box[3] - box[1])
            if inside and (choice is None or area < choice[0]):
                choice = (area, label, sides)
        result.append((5, None) if choice is None else choice[1:])
    return result


@pytest.mark.parametrize("centred", [False, True])
def test_targets(centred):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(300, 2, generator=generator) * 100
    ranges = torch.tensor([[-1.0, 30.0], [30.0, math.inf]]).repeat(150, 1)
    reach = torch.tensor([6.0, 12.0]).repeat(150) if centred else None
    low = torch.rand(8, 2, generator=generator) * 70
    boxes = torch.cat((low, low + 5 + torch.rand(8, 2, generator=generator) * 60), dim=1)
    labels, distances = point_targets(points, ranges, Targets(boxes, torch.arange(8) % 5), 5, reach)
    limits = None if reach is None else reach.tolist()
    wanted = by_hand(points.tolist(), ranges.tolist(), boxes.tolist(), [i % 5 for i in range(8)], limits)
    assert labels.tolist() == [label for label, _ in wanted]
    assert (labels < 5).sum() > 10
    for got, (_, sides) in zip(distances, wanted, strict=True):
        if sides is not None:
            torch.testing.assert_close(got, torch.tensor(sides), rtol=0, atol=1e-4)


def test_centerness():
    distances = torch.tensor([[4.0, 3.0, 4.0, 3.0], [1.0, 2.0, 4.0, 8.0]])
    torch.testing.assert_close(centerness_of(distances), torch.tensor([1.0, 0.25]))
