"""The highest overlap, prior by prior."""

from __future__ import annotations

import itertools

import pytest
import torch
from plain_boxes import area, intersection, iou, random_boxes

from sdk.models.assigners import BACKGROUND, IGNORED, MaxIoUAssigner
from sdk.models.assigners.approx_max_iou import ApproxMaxIoUAssigner


def by_hand(priors, boxes, rule, ignored):
    low, high = rule.negative if isinstance(rule.negative, tuple) else (0.0, rule.negative)
    left_out = [
        rule.ignore is not None and any(intersection(p, region) / area(p) > rule.ignore for region in ignored)
        for p in priors
    ]
    matched = []
    for prior, out in zip(priors, left_out, strict=True):
        overlaps = [iou(prior, box) for box in boxes]
        best = max(overlaps)
        if out:
            matched.append(IGNORED)
        elif best >= rule.positive:
            matched.append(overlaps.index(best))
        else:
            matched.append(BACKGROUND if low <= best < high else IGNORED)
    if rule.match_low_quality:
        for number, box in enumerate(boxes):
            overlaps = [-1.0 if out else iou(p, box) for p, out in zip(priors, left_out, strict=True)]
            best = max(overlaps)
            if best <= 0 or best < rule.min_positive:
                continue
            places = [i for i, overlap in enumerate(overlaps) if overlap == best]
            for place in places if rule.match_all_best else places[:1]:
                matched[place] = number
    return matched


RULES = [
    MaxIoUAssigner(positive=positive, negative=negative, match_low_quality=low, match_all_best=every, ignore=ignore)
    for (positive, negative), (low, every), ignore in itertools.product(
        [(0.5, 0.5), (0.6, 0.3), (0.5, (0.1, 0.4))], [(True, True), (True, False), (False, True)], [None, 0.4]
    )
] + [MaxIoUAssigner(positive=0.7, negative=0.3, min_positive=0.3)]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_matches(rule):
    boxes, ignored = random_boxes(8, seed=1), random_boxes(2, seed=2, least=20)
    # Some priors stand twice, so that several are equally good for one object.
    priors = torch.cat((random_boxes(150, seed=0), boxes + 3, boxes + 3, random_boxes(5, seed=3)))
    got = rule(priors, boxes, ignored)
    wanted = by_hand(priors.tolist(), boxes.tolist(), rule, ignored.tolist())
    assert got.matched.tolist() == wanted
    assert BACKGROUND in wanted
    assert max(wanted) >= 0


def test_overlap_that_is_told():
    priors, boxes = random_boxes(20, seed=0), random_boxes(3, seed=1)
    wanted = [max(iou(p, box) for box in boxes.tolist()) for p in priors.tolist()]
    assert MaxIoUAssigner()(priors, boxes).overlaps.tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_prior_that_is_the_best_of_two_goes_to_the_last():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 12.0]])
    assert MaxIoUAssigner(positive=0.9, negative=0.1)(boxes[:1], boxes).matched.tolist() == [1]


@pytest.mark.parametrize("every", [True, False])
def test_an_object_that_no_prior_touches_takes_none(every):
    """Nor does one without extent."""
    priors = random_boxes(10, seed=0)
    boxes = torch.tensor([[900.0, 900.0, 950.0, 950.0], [20.0, 20.0, 20.0, 20.0]])
    got = MaxIoUAssigner(match_all_best=every)(priors, boxes)
    assert got.matched.tolist() == [BACKGROUND] * 10


def test_without_objects_all_are_background():
    priors = random_boxes(5, seed=0)
    got = MaxIoUAssigner(ignore=0.5)(priors, torch.zeros(0, 4), priors[:1])
    assert got.matched.tolist() == [BACKGROUND] * 5
    assert len(MaxIoUAssigner()(torch.zeros(0, 4), priors).matched) == 0


def test_the_best_of_several_shapes():
    """A location that takes part overlaps an object as much as its best shape does, and is assigned by these."""
    shapes, boxes = random_boxes(300, seed=0).reshape(100, 3, 4), random_boxes(6, seed=1)
    usable = torch.rand(100, generator=torch.Generator().manual_seed(2)) > 0.3
    rule = MaxIoUAssigner(positive=0.5, negative=0.3)
    got = ApproxMaxIoUAssigner(rule)(shapes, usable, boxes)
    overlaps = [[max(iou(s, box) for s in place) for place in shapes.tolist()] for box in boxes.tolist()]
    taken = {best_of(row, usable): number for number, row in enumerate(overlaps)}
    for place in range(100):
        own, number = [row[place] for row in overlaps], taken.get(place)
        if not usable[place]:
            wanted = IGNORED
        elif number is not None or max(own) >= 0.5:
            wanted = own.index(max(own)) if number is None else number
        else:
            wanted = BACKGROUND if max(own) < 0.3 else IGNORED
        assert int(got.matched[place]) == wanted
        assert float(got.overlaps[place]) == pytest.approx(max(own) if usable[place] else 0, abs=1e-5)


def best_of(overlaps, usable):
    """The location that takes part and overlaps most."""
    return max((overlap, place) for place, overlap in enumerate(overlaps) if usable[place])[1]


def test_ground_truths_come_first():
    priors, boxes = random_boxes(20, seed=0), random_boxes(3, seed=1)
    found = MaxIoUAssigner()(priors, boxes)
    joined = found.with_ground_truth(3)
    assert joined.matched.tolist() == [0, 1, 2, *found.matched.tolist()]
    assert joined.overlaps.tolist() == [1.0] * 3 + found.overlaps.tolist()
