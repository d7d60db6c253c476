"""Foveas, location by location."""

from __future__ import annotations

import math

import torch

from sdk.models.methods.foveabox import RANGES, STRIDES, UNITS, FoveaHead
from sdk.models.structures import Targets

SIZES = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]


def by_hand(boxes, labels):
    """Label and codes of each location; larger objects are painted first."""
    result = []
    for (height, width), stride, unit, (low, high) in zip(SIZES, STRIDES, UNITS, RANGES, strict=True):
        level: dict = {(y, x): (7, None) for y in range(height) for x in range(width)}
        order = sorted(range(len(boxes)), key=lambda i: -(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))
        for i in order:
            x1, y1, x2, y2 = boxes[i]
            if not low <= math.sqrt((x2 - x1) * (y2 - y1)) <= high:
                continue
            left = math.ceil((x1 + 0.3 * (x2 - x1)) / stride - 0.5)
            right = math.floor((x1 + 0.7 * (x2 - x1)) / stride - 0.5)
            top = math.ceil((y1 + 0.3 * (y2 - y1)) / stride - 0.5)
            bottom = math.floor((y1 + 0.7 * (y2 - y1)) / stride - 0.5)
            left, right = (min(max(v, 0), width - 1) for v in (left, right))
            top, bottom = (min(max(v, 0), height - 1) for v in (top, bottom))
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    px, py = (x + 0.5) * stride, (y + 0.5) * stride
                    sides = ((px - x1) / unit, (py - y1) / unit, (x2 - px) / unit, (y2 - py) / unit)
                    level[y, x] = (labels[i], [math.log(min(max(s, 1 / 16), 16)) for s in sides])
        result += level.values()
    return result


def test_targets():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(12, 2, generator=generator) * 180
    boxes = torch.cat((low, low + 8 + torch.rand(12, 2, generator=generator) ** 2 * 200), dim=1)
    labels, codes = FoveaHead(num_classes=7, share=0.4).image_targets(SIZES, Targets(boxes, torch.arange(12) % 7))
    wanted = by_hand(boxes.tolist(), [i % 7 for i in range(12)])
    assert labels.tolist() == [label for label, _ in wanted]
    assert len(set(labels.tolist())) > 4
    for got, (_, code) in zip(codes, wanted, strict=True):
        if code is not None:
            torch.testing.assert_close(got, torch.tensor(code), rtol=1e-3, atol=1e-3)
