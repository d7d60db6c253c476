"""Balanced sampling against counts by hand."""

from __future__ import annotations

import torch
from sdk.models.assigners import BACKGROUND, Assignment
from sdk.models.samplers import BalancedSampler


def test_positives_are_spread_over_objects():
    matched = torch.tensor([0] * 100 + [1] * 4 + [2] * 30 + [BACKGROUND] * 10)
    sampler = BalancedSampler(num=48, pos_fraction=0.25)
    torch.manual_seed(0)
    for _ in range(20):
        positive, negative = sampler(Assignment(matched, torch.rand(len(matched))))
        counts = torch.bincount(matched[positive])
        # 12 positives of 3 objects: at most 12 / 3 + 1 of each.
        assert counts.sum() == 12
        assert counts.max() <= 5
        assert len(positive.unique()) == 12
        assert len(negative) == 10
        assert (matched[negative] == BACKGROUND).all()


def test_negatives_are_spread_over_overlaps():
    # With a perfect overlap in the image the intervals are [-1, -1/3), [-1/3, 1/3) and [1/3, 1).
    overlaps = torch.cat((torch.ones(1), torch.full((1000,), 0.01), torch.full((100,), 0.4)))
    matched = torch.full((1101,), BACKGROUND)
    matched[0] = 0
    sampler = BalancedSampler(num=91, pos_fraction=0.25)
    torch.manual_seed(0)
    for _ in range(20):
        positive, negative = sampler(Assignment(matched, overlaps))
        assert positive.tolist() == [0]
        assert len(negative.unique()) == 90
        high = int((overlaps[negative] > 0.3).sum())
        # 30 come from either interval, and 30 of all that is left.
        assert 30 <= high <= 60
        assert high <= 45


def test_all_are_kept_where_there_is_room():
    matched = torch.tensor([BACKGROUND, 0, -2, BACKGROUND, 1])
    positive, negative = BalancedSampler(num=100)(Assignment(matched, torch.rand(5)))
    assert positive.tolist() == [1, 4]
    assert negative.tolist() == [0, 3]


def test_nothing_to_draw_from():
    empty = Assignment(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    positive, negative = BalancedSampler()(empty)
    assert len(positive) == 0
    assert len(negative) == 0
