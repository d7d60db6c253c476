"""Anchors of the responsible cells, anchor by anchor."""

from __future__ import annotations

import pytest
import torch
from plain_boxes import iou, random_boxes

from sdk.models.assigners import BACKGROUND, IGNORED
from sdk.models.assigners.grid import GridAssigner


def by_hand(priors, responsible, boxes, positive, negative):
    matched = []
    for prior, own in zip(priors, responsible, strict=True):
        overlaps = [iou(box, prior) for box in boxes]
        best = max(overlaps)
        if own and best > positive:
            matched.append(overlaps.index(best))
        else:
            matched.append(BACKGROUND if best <= negative else IGNORED)
    for number, box in enumerate(boxes):
        overlaps = [iou(box, prior) if own else 0.0 for prior, own in zip(priors, responsible, strict=True)]
        if max(overlaps) > 0:
            matched[overlaps.index(max(overlaps))] = number
    return matched


@pytest.mark.parametrize("seed", range(4))
def test_matches(seed):
    priors, boxes = random_boxes(200, seed=seed), random_boxes(7, seed=seed + 10)
    responsible = torch.rand(200, generator=torch.Generator().manual_seed(seed)) > 0.6
    got = GridAssigner(positive=0.5, negative=0.4)(priors, responsible, boxes)
    wanted = by_hand(priors.tolist(), responsible.tolist(), boxes.tolist(), 0.5, 0.4)
    assert got.matched.tolist() == wanted
    assert {BACKGROUND, IGNORED} < set(wanted)


def test_an_object_that_no_responsible_anchor_touches_has_none():
    priors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    got = GridAssigner()(priors, torch.tensor([True, False]), torch.tensor([[50.0, 50.0, 60.0, 60.0]]))
    assert got.matched.tolist() == [BACKGROUND, IGNORED]


def test_no_objects():
    got = GridAssigner()(random_boxes(5, seed=0), torch.zeros(5, dtype=torch.bool), torch.zeros(0, 4))
    assert got.matched.tolist() == [BACKGROUND] * 5
