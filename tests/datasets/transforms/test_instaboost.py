import random
from dataclasses import replace

import numpy as np
import pytest
from traced import assert_tight, copied, traced_sample

from sdk.datasets.masks import BitMasks
from sdk.datasets.transforms import InstaBoost

pytest.importorskip("instaboostfast")
ALWAYS = InstaBoost(1.0, color_probability=0.0)


def sample_of(boxes, h=60, w=80, ignore=None):
    """Noise with rectangles."""
    image = np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    masks = np.zeros((len(boxes), h, w), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
        mask[y1:y2, x1:x2] = 1
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
    sample = replace(traced_sample(h, w, 0), semantic=None, proposals=None)
    return replace(sample, image=image, boxes=boxes, labels=np.arange(len(boxes)), ignore=ignore, masks=BitMasks(masks))


@pytest.mark.parametrize("seed", range(6))
def test_boxes_follow_masks_within_the_jitter(seed):
    sample = sample_of([[15, 12, 40, 40], [45, 20, 65, 48]])
    after = ALWAYS(sample, np.random.default_rng(seed))
    assert after.labels.tolist() == [0, 1]
    assert_tight(after)
    assert not np.array_equal(after.image, sample.image)
    for old, new in zip(sample.boxes, after.boxes):
        size, center = old[2:] - old[:2], (old[2:] + old[:2]) / 2
        assert (np.abs((new[2:] + new[:2]) / 2 - center) <= size / 15 + 1.5).all()
        ratio = (new[2:] - new[:2]) / size
        assert (ratio > 0.7).all()
        assert (ratio < 1.35).all()


def test_an_object_that_only_moves_takes_its_pixels_along():
    """Without resizing and turning, the mask is the old one shifted by whole pixels, and so is the image below it."""
    sample = sample_of([[15, 12, 60, 50]])
    image = np.full_like(sample.image, 40)
    image[12:50, 15:60] = np.random.default_rng(1).integers(0, 256, (38, 45, 3))
    sample = replace(sample, image=image)
    shifts = set()
    for seed in range(12):
        still = InstaBoost(1.0, scale=(1.0, 1.0), theta=(0, 0), color_probability=0.0)
        after = still(sample, np.random.default_rng(seed))
        x, y = (after.boxes[0, :2] - sample.boxes[0, :2]).astype(int)
        shifts.add((x, y))
        mask = after.masks.decode()[0]
        assert mask.sum() == pytest.approx(38 * 45, rel=0.06)
        rows, columns = np.nonzero(mask)
        inner = (rows > rows.min() + 2) & (rows < rows.max() - 2) & (columns > columns.min() + 2)
        inner &= columns < columns.max() - 2
        ys, xs = rows[inner], columns[inner]
        off = [
            np.abs(after.image[ys, xs].astype(int) - image[ys - y - dy, xs - x - dx]).mean()
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        assert min(off) < 3
    assert len(shifts) > 3


def test_ignored_objects_stay():
    sample = sample_of([[15, 12, 40, 40], [45, 20, 65, 48]], ignore=[False, True])
    for seed in range(4):
        after = ALWAYS(sample, np.random.default_rng(seed))
        np.testing.assert_array_equal(after.boxes[1], sample.boxes[1])
        np.testing.assert_array_equal(after.masks.decode()[1], sample.masks.decode()[1])


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        [[5, 5, 5, 5]],
        [[30, 30, 31, 31]],
        [[0, 0, 1, 60]],
        [[79, 59, 80, 60]],
        [[0, 0, 80, 60]],
        [[0, 0, 80, 60]] * 3,
        [[30, 30, 31, 31], [10, 10, 40, 40], [0, 0, 2, 2]],
    ],
    ids=str,
)
def test_hard_objects(boxes):
    """None, empty, single pixels, at the edge, as large as the image, one over another."""
    sample = sample_of(boxes)
    for seed in range(3):
        after = InstaBoost(1.0, color_probability=0.5)(sample, np.random.default_rng(seed))
        assert after.size == sample.size
        assert after.image.dtype == np.uint8
        assert after.boxes.shape == (len(after.labels), 4)
        assert len(after.masks) == len(after.labels) == len(after.ignore)
        assert_tight(after) if boxes != [[5, 5, 5, 5]] else None
        assert set(after.labels) <= set(sample.labels)


def test_tiny_image():
    after = ALWAYS(sample_of([[0, 0, 1, 1]], 1, 1), np.random.default_rng(0))
    assert after.size == (1, 1)


def test_only_some_images_are_touched():
    sample = sample_of([])
    assert InstaBoost(0.0)(sample, np.random.default_rng(0)) is sample


def test_randomness_is_the_generators_alone():
    sample = sample_of([[15, 12, 40, 40], [45, 20, 65, 48]])
    before = copied(replace(sample, semantic=sample.image))
    random.seed(1)
    np.random.seed(1)
    states = random.getstate(), np.random.get_state()[1].copy()
    once = InstaBoost(1.0)(sample, np.random.default_rng(5))
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    random.seed(2)
    np.random.seed(2)
    again = InstaBoost(1.0)(sample, np.random.default_rng(5))
    np.testing.assert_array_equal(once.image, again.image)
    np.testing.assert_array_equal(once.boxes, again.boxes)
    for a, b in zip(before, copied(replace(sample, semantic=sample.image))):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_be_done_is_said():
    sample = sample_of([[15, 12, 40, 40]])
    with pytest.raises(ValueError, match="has no masks"):
        ALWAYS(replace(sample, masks=None), np.random.default_rng(0))
    with pytest.raises(ValueError, match="has a semantic map"):
        ALWAYS(traced_sample(10, 10, 1), np.random.default_rng(0))
