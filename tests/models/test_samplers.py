"""Samplers against counts by hand."""

from __future__ import annotations

import pytest
import torch

from sdk.models.assigners import BACKGROUND, IGNORED, Assignment
from sdk.models.samplers import AllSampler, BalancedSampler, OHEMSampler, RandomSampler, ranks_in_groups


def mixed(positives: int, negatives: int, ignored: int = 5) -> Assignment:
    """So many priors of each kind, in random order."""
    matched = torch.tensor([0, 1, 2] * positives)[:positives].tolist() + [BACKGROUND] * negatives + [IGNORED] * ignored
    order = torch.randperm(len(matched), generator=torch.Generator().manual_seed(0))
    return Assignment(torch.tensor(matched)[order], torch.rand(len(matched)))


@pytest.mark.parametrize(
    ("positives", "negatives", "bound", "wanted"),
    [
        # At most a quarter of 40 is positive, and what positives leave goes to negatives.
        (30, 100, -1, (10, 30)),
        (4, 100, -1, (4, 36)),
        (4, 12, -1, (4, 12)),
        # At most three negatives for each positive, and for one where there is none.
        (4, 100, 3, (4, 12)),
        (0, 100, 3, (0, 3)),
        (0, 100, 0, (0, 0)),
        (30, 0, -1, (10, 0)),
    ],
)
@pytest.mark.parametrize("kind", [RandomSampler, BalancedSampler, OHEMSampler])
def test_counts(kind, positives, negatives, bound, wanted):
    torch.manual_seed(1)
    assignment = mixed(positives, negatives)
    sampler = kind(num=40, pos_fraction=0.25, neg_pos_ub=bound)
    given = (torch.rand(len(assignment.matched)),) if kind is OHEMSampler else ()
    positive, negative = sampler(assignment, *given)
    assert (len(positive.unique()), len(negative.unique())) == (len(positive), len(negative)) == wanted
    assert assignment.positive[positive].all()
    assert assignment.negative[negative].all()
    if kind is not OHEMSampler:
        assert positive.tolist() == sorted(positive.tolist())
        assert negative.tolist() == sorted(negative.tolist())


def test_every_prior_has_the_same_chance():
    torch.manual_seed(0)
    assignment, sampler = mixed(20, 40), RandomSampler(num=20, pos_fraction=0.5)
    drawn = torch.zeros(len(assignment.matched))
    for _ in range(2000):
        for index in sampler(assignment):
            drawn[index] += 1
    # Ten of twenty positives and ten of forty negatives: four standard deviations are 89 and 77.
    assert bool(((drawn[assignment.positive] - 1000).abs() < 90).all())
    assert bool(((drawn[assignment.negative] - 500).abs() < 80).all())


def test_all_are_taken():
    positive, negative = AllSampler()(mixed(7, 9))
    assert (len(positive), len(negative)) == (7, 9)


def test_ranks_in_groups():
    torch.manual_seed(0)
    values, groups = torch.rand(40), torch.randint(0, 5, (40,))
    wanted = [sum(bool(groups[j] == groups[i]) and bool(values[j] > values[i]) for j in range(40)) for i in range(40)]
    assert ranks_in_groups(values, groups).tolist() == wanted
    assert len(ranks_in_groups(values[:0], groups[:0])) == 0


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
