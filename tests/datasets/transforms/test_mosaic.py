from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traced import INSIDE, assert_tight, copied, traced_sample

from sdk.datasets.masks import BitMasks, PolygonMasks
from sdk.datasets.transforms import Mosaic


def numbered(count, h=100, w=100, kind=BitMasks):
    """Traced samples of the mosaic's own size, which are thus not resized; green says which one it is."""
    samples = []
    for number in range(count):
        sample = traced_sample(h, w, 3, number, kind, ignored=number % 2)
        image = sample.image.copy()
        image[..., 0] = number
        samples.append(replace(sample, image=image, labels=sample.labels + 10 * number))
    return samples


@given(st.integers(0, 2**32 - 1), st.sampled_from([BitMasks, PolygonMasks]))
def test_objects_stay_with_their_pixels(seed, kind):
    samples = numbered(5, kind=kind)
    joined = Mosaic(samples[1:], (100, 100))(samples[0], np.random.default_rng(seed))
    assert joined.size == (200, 200)
    assert_tight(joined)
    assert joined.masks.size == (200, 200)
    inside = joined.image[..., 2] == INSIDE
    assert (joined.image[~inside] == 114).all()
    assert (joined.semantic[~inside] == 255).all()
    assert joined.image[inside][0, 0] == 0  # the image itself comes first
    for label, ignore, mask in zip(joined.labels, joined.ignore, joined.masks.decode()):
        number, index = divmod(int(label), 10)
        assert ignore == samples[number].ignore[index]
        assert (joined.image[mask == 1][:, 0] == number).all()
        assert (joined.image[mask == 1][:, 2] == INSIDE).all()
    assert len(joined.boxes) == len(joined.labels) == len(joined.ignore) == len(joined.masks)


def test_meeting_point_covers_its_range():
    samples = numbered(2, 10, 10)
    rng = np.random.default_rng(0)
    images = [Mosaic(samples[1:], (10, 10))(samples[0], rng).image for _ in range(500)]
    # The first image ends where the second begins.
    columns = {int(np.flatnonzero((image[..., 0] == 0).any(axis=0))[-1]) + 1 for image in images}
    assert columns == set(range(5, 15))


@pytest.mark.parametrize("size", [(1, 1), (30, 200), (200, 30)])
def test_images_of_any_shape_fit(size):
    samples = [traced_sample(*size, 2), traced_sample(90, 40, 0)]
    joined = Mosaic(samples, (64, 64))(samples[0], np.random.default_rng(1))
    assert joined.size == (128, 128)
    assert joined.boxes.max(initial=0) <= 128


def test_masks_and_maps_are_kept_only_if_all_have_them():
    samples = numbered(3)
    without = [replace(sample, masks=None, semantic=None) for sample in samples]
    joined = Mosaic(without, (100, 100))(samples[0], np.random.default_rng(0))
    assert joined.masks is None
    assert joined.semantic is None


def test_same_seed_same_sample_and_the_input_is_left_alone():
    samples = numbered(4)
    before = copied(samples[0])
    once, again = (Mosaic(samples, (80, 80))(samples[0], np.random.default_rng(3)) for _ in range(2))
    for a, b in zip(copied(once), copied(again)):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(before, copied(samples[0])):
        np.testing.assert_array_equal(a, b)


def test_a_dataset_without_images_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        Mosaic([])
