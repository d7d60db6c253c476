"""The nearest anchors and predictions of every object, object by object."""

from __future__ import annotations

import pytest
import torch
from plain_boxes import centre_and_size, iou, random_boxes

from sdk.models.assigners import BACKGROUND, IGNORED
from sdk.models.assigners.uniform import UniformAssigner


def nearest(boxes, wanted, count):
    """Numbers of the boxes whose centre and size differ least from those wanted, in sum, nearest first."""
    goal = centre_and_size(wanted)
    distance = [sum(abs(a - b) for a, b in zip(centre_and_size(box), goal, strict=True)) for box in boxes]
    return sorted(range(len(boxes)), key=lambda i: distance[i])[:count]


def by_hand(predicted, anchors, boxes, rule):
    """What each prior is assigned, and the (prior, object) pairs that boxes are learnt from."""
    covered = [max(iou(p, box) for box in boxes) > rule.ignore_negative for p in predicted]
    matched = [IGNORED if flag else BACKGROUND for flag in covered]
    by_prediction = [nearest(predicted, box, rule.matches) for box in boxes]
    by_anchor = [nearest(anchors, box, rule.matches) for box in boxes]
    pairs = []
    for rank in range(rule.matches):
        for kind in (by_prediction, by_anchor):
            for number, box in enumerate(boxes):
                prior = kind[number][rank]
                near = iou(anchors[prior], box) >= rule.ignore_positive
                matched[prior] = number if near else IGNORED
                pairs += [(prior, number)] if near else []
    return matched, pairs


@pytest.mark.parametrize("seed", range(4))
def test_matches(seed):
    anchors, boxes = random_boxes(60, seed=seed), random_boxes(5, seed=seed + 10)
    predicted = anchors + 4 * torch.randn(60, 4, generator=torch.Generator().manual_seed(seed))
    predicted[::7] = boxes[0] + torch.randn(9, 4, generator=torch.Generator().manual_seed(seed))
    rule = UniformAssigner(matches=3, ignore_positive=0.15, ignore_negative=0.6)
    got, prior, truth = rule(predicted, anchors, boxes)
    matched, pairs = by_hand(predicted.tolist(), anchors.tolist(), boxes.tolist(), rule)
    assert got.matched.tolist() == matched
    assert list(zip(prior.tolist(), truth.tolist(), strict=True)) == pairs
    assert {BACKGROUND, IGNORED} < set(matched)


def test_fewer_priors_than_matches():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0]])
    got, prior, truth = UniformAssigner(matches=4)(anchors, anchors, anchors[:1])
    assert got.matched.tolist() == [0, 0]
    assert prior.tolist() == [0, 0, 1, 1]
    assert truth.tolist() == [0] * 4


def test_no_objects():
    anchors = random_boxes(5, seed=0)
    got, prior, truth = UniformAssigner()(anchors, anchors, torch.zeros(0, 4))
    assert got.matched.tolist() == [BACKGROUND] * 5
    assert len(prior) == len(truth) == 0
