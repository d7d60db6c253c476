from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traced import assert_follows, assert_tight, copied, sources, traced_sample, traced_samples

from sdk.datasets.transforms import CenterCropPad, Expand, Flip, MinIoUCrop, RandomCrop

SEEDS = st.integers(0, 2**32 - 1)


def window_of(after):
    """xyxy of the part of the traced image that is still to be seen."""
    inside, y, x = sources(after)
    return np.array([x[inside].min(), y[inside].min(), x[inside].max() + 1, y[inside].max() + 1])


def centers_inside(boxes, window):
    centers = (boxes[:, :2].astype(float) + boxes[:, 2:]) / 2
    return ((centers > window[:2]) & (centers < window[2:])).all(axis=1)


@given(traced_samples(), SEEDS, st.integers(1, 250), st.integers(1, 250), st.booleans())
def test_absolute_crop(sample, seed, width, height, allow_empty):
    cropped = RandomCrop((width, height), allow_empty=allow_empty)(sample, np.random.default_rng(seed))
    assert cropped.size == (min(height, sample.size[0]), min(width, sample.size[1]))
    assert_follows(sample, cropped)
    assert_tight(cropped)
    left, top, right, bottom = window_of(cropped)
    visible = [mask[top:bottom, left:right].any() for mask in sample.masks.decode()]
    np.testing.assert_array_equal(cropped.labels, np.flatnonzero(visible))
    if not allow_empty:
        assert sample.ignore.all() or not cropped.ignore.all()


@given(traced_samples(), SEEDS, st.integers(1, 150), st.integers(0, 100))
def test_crop_to_a_range_of_sizes(sample, seed, low, more):
    crop = RandomCrop((low, low + more), "absolute_range", allow_empty=True)
    cropped = crop(sample, np.random.default_rng(seed))
    for edge, old in zip(cropped.size, sample.size):
        assert min(old, low) <= edge <= min(old, low + more)
    assert_follows(sample, cropped)
    assert_tight(cropped)


def test_crop_places_and_sizes_cover_their_ranges():
    sample = traced_sample(10, 10, 0)
    rng = np.random.default_rng(0)
    crops = [RandomCrop((7, 7))(sample, rng) for _ in range(300)]
    assert {tuple(crop.image[0, 0, :2]) for crop in crops} == {(y, x) for y in range(4) for x in range(4)}
    crops = [RandomCrop((7, 9), "absolute_range")(sample, rng) for _ in range(300)]
    assert {crop.size for crop in crops} == {(h, w) for h in (7, 8, 9) for w in (7, 8, 9)}


def test_crop_without_counted_objects_does_not_look_for_one():
    sample = traced_sample(50, 50, 2, ignored=2)
    rng = np.random.default_rng(0)
    assert any(not len(RandomCrop((3, 3))(sample, rng).boxes) for _ in range(50))


@given(traced_samples(), SEEDS)
def test_min_iou_crop(sample, seed):
    crop = MinIoUCrop()
    cropped = crop(sample, np.random.default_rng(seed))
    assert_follows(sample, cropped)
    assert_tight(cropped)
    if cropped is not sample:
        window = window_of(cropped)
        np.testing.assert_array_equal(cropped.labels, np.flatnonzero(centers_inside(sample.boxes, window)))
        assert len(cropped.boxes) > 0 or not len(sample.boxes)
        for edge, old in zip(cropped.size, sample.size):
            assert edge >= int(crop.min_size * old)


class SecondMode:
    """Draws like a generator, but always takes the first IoU of the list."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def integers(self, count):
        assert count == 3
        return 2

    def uniform(self, *args, **kwargs):
        return self._rng.uniform(*args, **kwargs)


@pytest.mark.parametrize("iou", [0.1, 0.3, 0.5, 0.7])
def test_min_iou_crop_meets_its_iou_with_every_box(iou):
    sample = traced_sample(100, 200, 0)
    boxes = np.array([[40, 20, 170, 90], [50, 15, 165, 95]], np.float32)
    sample = replace(sample, boxes=boxes, labels=np.arange(2), ignore=np.zeros(2, bool), masks=None, proposals=None)
    for seed in range(40):
        left, top, right, bottom = window_of(MinIoUCrop((iou,))(sample, SecondMode(seed)))
        for x1, y1, x2, y2 in boxes:
            shared = max(min(x2, right) - max(x1, left), 0) * max(min(y2, bottom) - max(y1, top), 0)
            union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared
            assert shared / union >= iou
        assert 0.5 - 0.1 <= (bottom - top) / (right - left) <= 2 + 0.1


def test_min_iou_crop_leaves_a_seventh_of_images_whole():
    sample = traced_sample(100, 100, 0)
    rng = np.random.default_rng(0)
    whole = sum(MinIoUCrop()(sample, rng) is sample for _ in range(2000))
    assert 0.12 < whole / 2000 < 0.17


@given(traced_samples(), SEEDS)
def test_center_crop_pad(sample, seed):
    crop = CenterCropPad((60, 50), border=20)
    cropped = crop(sample, np.random.default_rng(seed))
    assert_follows(sample, cropped)
    assert_tight(cropped)
    if cropped is sample:
        return
    assert cropped.size in {(int(50 * ratio), int(60 * ratio)) for ratio in crop.ratios}
    inside, _, _ = sources(cropped)
    assert (cropped.image[~inside] == (124, 116, 104)).all()
    # Whoever has its center in the window stays, but for the last row and column of an odd canvas.
    window = window_of(cropped)
    stays = np.flatnonzero(centers_inside(sample.boxes, window))
    assert set(cropped.labels) <= set(stays)
    sure = centers_inside(sample.boxes, [window[0], window[1], window[2] - 1, window[3] - 1])
    assert set(np.flatnonzero(sure)) <= set(cropped.labels)
    assert len(cropped.boxes) > 0 or not len(sample.boxes)


@pytest.mark.parametrize("edge", [1, 2, 3, 40, 60, 100, 128, 129, 200, 255])
def test_center_stays_off_the_border(edge):
    """The published rule: border // 2 ** (ceil(log2(ceil(k))), one more where k is whole), k = 2 * border / edge."""
    k = 2 * 128 / edge
    border = int(128 // 2 ** (np.ceil(np.log2(np.ceil(k))) + (k == int(k))))
    sample = traced_sample(edge, edge, 0)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        cropped = CenterCropPad((4, 4), ratios=(1.0,))(sample, rng)
        inside, y, x = sources(cropped)
        assert inside[2, 2]
        seen |= {y[2, 2], x[2, 2]}
    assert border <= min(seen)
    assert max(seen) < edge - border
    assert max(seen) - min(seen) >= 0.9 * (edge - 2 * border - 1)


def test_center_crop_pad_gives_up_on_boxes_that_no_window_holds():
    sample = replace(traced_sample(100, 100, 0), masks=None, proposals=None)
    on_the_edge = np.zeros((1, 4), np.float32)
    sample = replace(sample, boxes=on_the_edge, labels=np.zeros(1, int), ignore=np.zeros(1, bool))
    assert CenterCropPad()(sample, np.random.default_rng(0)) is sample


@pytest.mark.parametrize(
    "transform",
    [RandomCrop((40, 30)), RandomCrop((20, 60), "absolute_range"), MinIoUCrop(), CenterCropPad((70, 70))],
    ids=lambda t: type(t).__name__,
)
def test_same_seed_same_sample_and_the_input_is_left_alone(transform):
    sample = traced_sample(90, 120, 4)
    before = copied(sample)
    once, again = (transform(sample, np.random.default_rng(7)) for _ in range(2))
    for a, b in zip(copied(once), copied(again)):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(before, copied(sample)):
        np.testing.assert_array_equal(a, b)


@given(traced_samples(), SEEDS, st.sampled_from(["horizontal", "vertical", "diagonal"]))
def test_what_was_cut_off_does_not_come_back(sample, seed, direction):
    """Cropped, mirrored, and on a larger canvas again, polygons end where the pixels do."""
    rng = np.random.default_rng(seed)
    cropped = RandomCrop((30, 40), allow_empty=True)(sample, rng)
    after = Expand((1, 3), probability=1)(Flip(1.0, direction)(cropped, rng), rng)
    assert_follows(sample, after)
    assert_tight(after)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="'absolute' or 'absolute_range'"):
        RandomCrop((3, 3), "relative")
    with pytest.raises(ValueError, match="ranges in order"):
        RandomCrop((5, 3), "absolute_range")
