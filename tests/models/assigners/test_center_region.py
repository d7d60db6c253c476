"""Cores and shadows of objects, prior by prior."""

from __future__ import annotations

import torch

from sdk.models.assigners import BACKGROUND, IGNORED, CenterRegionAssigner


def share_inside(prior, box, scale):
    """The share of a prior's area inside a box, ``scale`` times as large around its centre."""
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = (box[2] - box[0]) * scale / 2, (box[3] - box[1]) * scale / 2
    width = min(prior[2], cx + w) - max(prior[0], cx - w)
    height = min(prior[3], cy + h) - max(prior[1], cy - h)
    return max(width, 0) * max(height, 0) / ((prior[2] - prior[0]) * (prior[3] - prior[1]))


def by_hand(priors, boxes, labels):
    """Of each prior the matched object and the classes in whose shadow it lies."""
    matched, shadows = [], []
    for prior in priors:
        x, y = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
        cores, around = [], []
        for number, box in enumerate(boxes):
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and share_inside(prior, box, 0.2) > 0.01:
                cores.append(number)
            elif share_inside(prior, box, 0.5) > 0.01:
                around.append(number)
        cores.sort(key=lambda i: (boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))
        shadow = {labels[i] for i in around + cores[1:]}
        own = cores[0] if cores and labels[cores[0]] not in shadow else BACKGROUND
        matched.append(own)
        shadows.append(shadow)
    return matched, shadows


def test_regions():
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(9, 2, generator=generator) * 60
    boxes = torch.cat((low, low + 10 + torch.rand(9, 2, generator=generator) * 50), dim=1)
    labels = torch.arange(9) % 3
    corner = torch.cartesian_prod(torch.arange(0.0, 120, 8), torch.arange(0.0, 120, 8))
    priors = torch.cat((corner, corner + 8), dim=1)
    assignment, shadow = CenterRegionAssigner(core=0.2, shadow=0.5)(priors, boxes, labels)
    matched, shadows = by_hand(priors.tolist(), boxes.tolist(), labels.tolist())
    assert assignment.matched.tolist() == matched
    assert [set(labels[row].tolist()) for row in shadow] == shadows
    assert assignment.positive.any()


def test_ignored_region():
    prior = torch.tensor([[0.0, 0.0, 8.0, 8.0], [40.0, 40.0, 48.0, 48.0]])
    assignment, _ = CenterRegionAssigner()(
        prior, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.tensor([[30.0, 30.0, 60.0, 60.0]])
    )
    assert assignment.matched.tolist() == [BACKGROUND, IGNORED]
