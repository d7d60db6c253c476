from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from traced import Scripted, assert_tight, traced_sample, traced_samples

from sdk.datasets.masks import BitMasks
from sdk.datasets.transforms import BoxesFromMasks, DropSmallBoxes, Flip, OneOf, Resize, TopProposals

RNG = np.random.default_rng(0)


@given(traced_samples())
def test_small_boxes_are_dropped_with_all_that_belongs_to_them(sample):
    kept = DropSmallBoxes((10, 30))(sample, RNG)
    x1, y1, x2, y2 = sample.boxes.T
    np.testing.assert_array_equal(kept.labels, np.flatnonzero((x2 - x1 > 10) & (y2 - y1 > 30)))
    assert_tight(kept)


def test_a_box_of_exactly_the_size_is_dropped():
    sample = traced_sample(50, 50, 2)
    boxes = np.array([[0, 0, 4, 10], [0, 0, 4.5, 10]], np.float32)
    assert DropSmallBoxes((4, 4))(replace(sample, boxes=boxes), RNG).labels.tolist() == [1]


@given(traced_samples())
def test_boxes_from_masks(sample):
    masks = sample.masks.decode().copy()
    masks[1:2] = 0
    after = BoxesFromMasks()(replace(sample, boxes=np.zeros_like(sample.boxes), masks=BitMasks(masks)), RNG)
    expected = np.delete(np.arange(len(masks)), slice(1, 2))
    np.testing.assert_array_equal(after.labels, expected)
    np.testing.assert_array_equal(after.boxes, sample.boxes[expected])
    assert after.boxes.dtype == np.float32


def test_top_proposals():
    sample = traced_sample(50, 50, 5)
    np.testing.assert_array_equal(TopProposals(3)(sample, RNG).proposals, sample.proposals[:3])
    assert len(TopProposals(9)(sample, RNG).proposals) == 5


@pytest.mark.parametrize(("transform", "field"), [(BoxesFromMasks(), "masks"), (TopProposals(), "proposals")])
def test_what_is_absent_is_named(transform, field):
    with pytest.raises(ValueError, match=f"image 0 has no {field}"):
        transform(replace(traced_sample(5, 5, 1), **{field: None}), RNG)


class Choosing(Scripted):
    def __init__(self, choice):
        super().__init__()
        self.choice = choice

    def integers(self, count):
        return min(self.choice, count - 1)


def test_one_of_applies_one_policy_whole():
    sample = traced_sample(20, 30, 2)
    policies = ((Resize(((60, 40),)),), (Resize(((30, 30),), keep_ratio=False), Resize(((15, 10),), keep_ratio=False)))
    assert OneOf(policies)(sample, Choosing(0)).size == (40, 60)
    assert OneOf(policies)(sample, Choosing(1)).size == (10, 15)


def test_one_of_chooses_evenly():
    sample = traced_sample(4, 5, 0)
    rng = np.random.default_rng(0)
    choice = OneOf(((), (Flip(1.0),), (Flip(1.0, "vertical"),)))
    corners = [tuple(choice(sample, rng).image[0, 0, :2]) for _ in range(1500)]
    assert all(0.29 < corners.count(corner) / 1500 < 0.38 for corner in ((0, 0), (0, 4), (3, 0)))


def test_no_choice_is_refused():
    with pytest.raises(ValueError, match="at least one sequence"):
        OneOf(())
