"""ATSS, object by object and candidate by candidate."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from plain_boxes import iou

from sdk.models.assigners import BACKGROUND, ATSSAssigner
from sdk.models.priors import anchor_grid


def by_hand(levels, boxes, topk):
    """Of each prior the matched object."""
    priors = [prior for level in levels for prior in level]
    best = {}
    for number, box in enumerate(boxes):
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        candidates, start = [], 0
        for level in levels:
            near = sorted(
                range(start, start + len(level)),
                key=lambda i: math.dist(centre, ((priors[i][0] + priors[i][2]) / 2, (priors[i][1] + priors[i][3]) / 2)),
            )
            candidates += near[:topk]
            start += len(level)
        overlaps = [iou(priors[i], box) for i in candidates]
        threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
        for index, overlap in zip(candidates, overlaps, strict=True):
            x, y = (priors[index][0] + priors[index][2]) / 2, (priors[index][1] + priors[index][3]) / 2
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > best.get(index, (0, -1))[0]:
                best[index] = (overlap, number)
    return [best.get(i, (0, BACKGROUND))[1] for i in range(len(priors))]


@pytest.mark.parametrize("seed", range(5))
def test_matches(seed):
    generator = torch.Generator().manual_seed(seed)
    levels = anchor_grid((8, 16, 32), scales=(4,), ratios=(1.0,))([(12, 16), (6, 8), (3, 4)], torch.device("cpu"))
    low = torch.rand(6, 2, generator=generator) * torch.tensor([90.0, 60.0])
    boxes = torch.cat((low, low + 8 + torch.rand(6, 2, generator=generator) * 50), dim=1)
    got = ATSSAssigner(topk=4)(levels, boxes)
    wanted = by_hand([level.tolist() for level in levels], boxes.tolist(), 4)
    assert got.matched.tolist() == wanted
    assert got.positive.any()


def test_no_objects():
    levels = [torch.rand(5, 4), torch.rand(2, 4)]
    assert ATSSAssigner()(levels, torch.zeros(0, 4)).matched.tolist() == [BACKGROUND] * 7
