import colorsys
import itertools
from dataclasses import replace

import numpy as np
import pytest
from traced import Scripted, traced_sample

from sdk.datasets.transforms import PhotometricDistortion


def distorted(image, flags, positions, order, transform):
    """The same by float64 and the standard library's colour conversion, one pixel at a time."""
    brightness, contrast, contrast_first, saturation, hue, channels = flags
    positions = list(positions)

    def draw(low, high):
        return low + (high - low) * positions.pop(0)

    add = draw(-transform.brightness, transform.brightness) if brightness else 0
    factor = draw(*transform.contrast) if contrast else 1
    richer = draw(*transform.saturation) if saturation else 1
    turn = draw(-transform.hue, transform.hue) if hue else 0
    out = np.zeros(image.shape)
    for place in np.ndindex(image.shape[:2]):
        pixel = image[place].astype(float) + add
        if contrast_first:
            pixel = pixel * factor
        if saturation or hue:
            h, s, v = colorsys.rgb_to_hsv(*(pixel.clip(0, 255) / 255))
            h, s = (h + turn / 360) % 1, s * richer
            # Saturations above one, spelled out: the conversion is linear in it.
            pixel = np.array(colorsys.hsv_to_rgb(h, 1, v))
            pixel = 255 * (v + s * (pixel - v))
        if not contrast_first:
            pixel = pixel * factor
        out[place] = pixel[list(order)] if channels else pixel
    return out.clip(0, 255)


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=6)))
def test_every_combination_of_steps(flags):
    rng = np.random.default_rng(sum(flag << i for i, flag in enumerate(flags)))
    image = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    image[0, 0], image[0, 1], image[0, 2] = 0, 255, 90  # no hue
    sample = replace(traced_sample(6, 7, 2), image=image)
    positions, order = rng.random(4), rng.permutation(3)
    transform = PhotometricDistortion()
    scripted = Scripted([0.0 if flag else 0.9 for flag in flags], positions, order)
    after = transform(sample, scripted)
    expected = distorted(image, flags, positions, order, transform)
    assert after.image.dtype == np.uint8
    assert after.image.flags.c_contiguous
    np.testing.assert_allclose(after.image, expected, atol=0.51)
    assert after.boxes is sample.boxes


def test_half_of_the_steps_are_taken():
    """With nothing else to change, an image stays as it is unless its channels are shuffled."""
    sample = replace(traced_sample(2, 2, 0), image=np.tile(np.uint8([10, 20, 30]), (2, 2, 1)))
    still = PhotometricDistortion(0, (1, 1), (1, 1), 0)
    rng = np.random.default_rng(0)
    orders = [tuple(still(sample, rng).image[0, 0]) for _ in range(3000)]
    assert 0.54 < orders.count((10, 20, 30)) / 3000 < 0.63  # 1/2, and 1/6 of the other half
    assert len(set(orders)) == 6


def test_same_seed_same_sample_and_the_input_is_left_alone():
    sample = traced_sample(30, 40, 1)
    before = sample.image.copy()
    once, again = (PhotometricDistortion()(sample, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(once.image, again.image)
    np.testing.assert_array_equal(sample.image, before)
