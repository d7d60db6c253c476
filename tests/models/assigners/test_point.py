"""The nearest points, object by object."""

from __future__ import annotations

import math

import pytest
import torch

from sdk.models.assigners import BACKGROUND, PointAssigner


def by_hand(points, strides, boxes, count):
    owner, nearest = [BACKGROUND] * len(points), [math.inf] * len(points)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        level = int((math.log2((x2 - x1) / 4) + math.log2((y2 - y1) / 4)) / 2)
        stride = 2 ** min(max(level, 3), 5)
        distance = {
            i: math.hypot((p[0] - (x1 + x2) / 2) / (x2 - x1), (p[1] - (y1 + y2) / 2) / (y2 - y1))
            for i, p in enumerate(points)
            if strides[i] == stride
        }
        for i in sorted(distance, key=lambda one: distance[one])[:count]:
            if distance[i] < nearest[i]:
                owner[i], nearest[i] = number, distance[i]
    return owner


@pytest.mark.parametrize("count", [1, 3])
def test_matches(count):
    generator = torch.Generator().manual_seed(count)
    points, strides = [], []
    for stride in (8, 16, 32):
        steps = torch.arange(0, 128, stride).float()
        points.append(torch.cartesian_prod(steps, steps))
        strides.append(torch.full((len(steps) ** 2,), float(stride)))
    low = torch.rand(12, 2, generator=generator) * 60
    boxes = torch.cat((low, low + 6 + torch.rand(12, 2, generator=generator) * 250), dim=1)
    points, strides = torch.cat(points), torch.cat(strides)
    got = PointAssigner(count=count)(points, strides, boxes)
    assert got.matched.tolist() == by_hand(points.tolist(), strides.tolist(), boxes.tolist(), count)


def test_no_objects():
    got = PointAssigner()(torch.rand(4, 2), torch.full((4,), 8.0), torch.zeros(0, 4))
    assert got.matched.tolist() == [BACKGROUND] * 4
