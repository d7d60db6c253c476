"""Boxes from points and points on boxes, number by number."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from sdk.models.dense.towers import Tower
from sdk.models.methods.reppoints import RepPointsHead, SquareAssigner, grid_in_box

SMALL = {"towers": Tower(32, 32, 3, None), "point_channels": 32}
YS = (3.0, 0.5, -2.0, 1.0, 7.0, -3.0, 2.0, 0.0, 4.0)
XS = (-1.0, 2.0, 4.0, 0.0, 5.0, -6.0, 2.5, 1.0, -2.0)
POINTS = tuple(zip(YS, XS, strict=True))


def predicted(head):
    points = torch.tensor(POINTS).flatten().view(1, 18, 1, 1)
    return head.to_boxes(points).flatten().tolist()


def test_smallest_box():
    whole = RepPointsHead(num_classes=1, **SMALL, box_from="minmax")
    assert predicted(whole) == [min(XS), min(YS), max(XS), max(YS)]
    part = RepPointsHead(num_classes=1, **SMALL, box_from="partial_minmax")
    assert predicted(part) == [min(XS[:4]), min(YS[:4]), max(XS[:4]), max(YS[:4])]


def test_moments():
    head = RepPointsHead(num_classes=1, **SMALL)
    assert head.moment_transfer is not None
    with torch.no_grad():
        head.moment_transfer.copy_(torch.tensor([0.3, -0.2]))
    half_w, half_h = statistics.stdev(XS) * math.exp(0.3), statistics.stdev(YS) * math.exp(-0.2)
    x, y = statistics.mean(XS), statistics.mean(YS)
    wanted = [x - half_w, y - half_h, x + half_w, y + half_h]
    assert predicted(head) == pytest.approx(wanted, rel=1e-5)
    # The factors learn a hundred times more slowly than the points.
    head.to_boxes(torch.tensor(POINTS).flatten().view(1, 18, 1, 1))[0, 2].sum().backward()
    assert head.moment_transfer.grad is not None
    assert head.moment_transfer.grad.tolist() == pytest.approx([half_w * 0.01, 0.0], rel=1e-4)


def test_points_on_one_spot():
    head = RepPointsHead(num_classes=1, **SMALL)
    points = torch.zeros(1, 18, 2, 2, requires_grad=True)
    head.to_boxes(points).sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()


def test_grid():
    codes = torch.tensor([0.25, -0.5, math.log(2.0), 0.0]).view(1, 4, 1, 1)
    box = torch.tensor([-2.0, -2.0, 2.0, 2.0]).view(1, 4, 1, 1)
    points, moved = grid_in_box(codes, box)
    assert moved.flatten().tolist() == pytest.approx([-3.0, -4.0, 5.0, 0.0])
    wanted = [value for y in (-4.0, -2.0, 0.0) for x in (-3.0, 1.0, 5.0) for value in (y, x)]
    assert points.flatten().tolist() == pytest.approx(wanted)


def test_squares():
    points, strides = torch.tensor([[16.0, 16.0], [64.0, 64.0]]), torch.tensor([8.0, 8.0])
    assert SquareAssigner()(points, strides, torch.tensor([[0.0, 0.0, 32.0, 32.0]])).matched.tolist() == [0, -1]


def test_unknown_way_to_a_box():
    with pytest.raises(ValueError, match="box_from"):
        RepPointsHead(num_classes=1, box_from="mean")
