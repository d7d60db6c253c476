from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traced import assert_follows, assert_tight, copied, sources, traced_sample, traced_samples

from sdk.datasets.transforms import Expand, Flip, PadTo, PadToMultiple, Resize, ScaleJitter, Shift

SEEDS = st.integers(0, 2**32 - 1)


def noise_sample(h, w, n=3, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    return replace(traced_sample(h, w, n, seed), image=image)


@given(traced_samples(), st.sampled_from(["horizontal", "vertical", "diagonal"]))
def test_flip(sample, direction):
    flip = Flip(1.0, direction)
    flipped = flip(sample, np.random.default_rng(0))
    assert_follows(sample, flipped)
    assert_tight(flipped)
    axes = {"horizontal": (1,), "vertical": (0,), "diagonal": (0, 1)}[direction]
    np.testing.assert_array_equal(flipped.image, np.flip(sample.image, axes))
    np.testing.assert_array_equal(flipped.proposals, flipped.boxes)
    back = flip(flipped, np.random.default_rng(0))
    np.testing.assert_array_equal(back.boxes, sample.boxes)


def test_flip_happens_as_often_as_told():
    sample = traced_sample(4, 5, 1)
    rng = np.random.default_rng(0)
    count = sum(Flip(0.3)(sample, rng).image[0, 0, 1] != 0 for _ in range(2000))
    assert 0.26 < count / 2000 < 0.34
    assert Flip(0.0)(sample, rng) is sample


@given(traced_samples(), SEEDS, st.floats(1, 3))
def test_expand(sample, seed, most):
    expanded = Expand((1, most), probability=1)(sample, np.random.default_rng(seed))
    assert_follows(sample, expanded)
    assert_tight(expanded)
    np.testing.assert_array_equal(expanded.labels, sample.labels)
    h, w = sample.size
    assert h <= expanded.size[0] <= h * most
    assert w <= expanded.size[1] <= w * most
    inside, _, _ = sources(expanded)
    assert inside.sum() == h * w
    assert (expanded.image[~inside] == (124, 116, 104)).all()


@given(traced_samples(), st.integers(1, 250), st.integers(1, 250), st.integers(1, 40))
def test_padding(sample, width, height, divisor):
    padded = PadTo((width, height))(sample, np.random.default_rng(0))
    assert_follows(sample, padded)
    assert padded.size == (max(height, sample.size[0]), max(width, sample.size[1]))
    padded = PadToMultiple(divisor)(sample, np.random.default_rng(0))
    assert_follows(sample, padded)
    assert_tight(padded)
    for edge, old in zip(padded.size, sample.size):
        assert edge % divisor == 0
        assert 0 <= edge - old < divisor
    assert not padded.image[~sources(padded)[0]].any()


@given(traced_samples(), SEEDS, st.integers(0, 40))
def test_shift(sample, seed, most):
    shifted = Shift(1.0, most)(sample, np.random.default_rng(seed))
    assert_follows(sample, shifted)
    assert_tight(shifted)
    assert shifted.size == sample.size
    inside, y, x = sources(shifted)
    if shifted is not sample and inside.any():
        rows, columns = np.nonzero(inside)
        top, left = rows[0] - y[rows[0], columns[0]], columns[0] - x[rows[0], columns[0]]
        assert max(abs(top), abs(left)) <= most
        moved = sample.boxes + np.array([left, top, left, top])
        moved = moved.clip(0, [sample.size[1], sample.size[0]] * 2)
        kept = ((moved[:, 2] - moved[:, 0]) > 1) & ((moved[:, 3] - moved[:, 1]) > 1)
        np.testing.assert_array_equal(shifted.labels, np.flatnonzero(kept))
        assert sample.ignore.all() or (~shifted.ignore).any()


@pytest.mark.parametrize(
    ("h", "w", "bounds", "expected"),
    [
        (480, 640, (1333, 800), (800, 1067)),  # 640 * 800 / 480 = 1066.67
        (640, 480, (800, 1333), (1067, 800)),
        (300, 1000, (1333, 800), (400, 1333)),
        (480, 640, (608, 608), (456, 608)),
        (1, 4000, (1333, 800), (1, 1333)),
        (500, 333, (1000, 1000), (1000, 666)),
    ],
)
def test_resize_keeps_the_ratio(h, w, bounds, expected):
    sample = replace(noise_sample(h, w, 0), scale=(2.0, 3.0))
    resized = Resize((bounds,))(sample, np.random.default_rng(0))
    assert resized.size == expected
    assert resized.scale == pytest.approx((2 * expected[1] / w, 3 * expected[0] / h))
    assert resized.original_size == (h, w)
    np.testing.assert_array_equal(resized.image, cv2.resize(sample.image, expected[::-1]))


def nearest(old, new):
    """Old pixel of each new one. Where it is whole, rounding may lead OpenCV to the one before: two answers."""
    position, rest = np.divmod(np.arange(new) * old, new)
    return position, np.maximum(position - (rest == 0), 0)


@given(traced_samples(), st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_resize_moves_everything_alike(sample, a, b, keep_ratio):
    resized = Resize(((a, b),), keep_ratio)(sample, np.random.default_rng(0))
    (height, width), (h, w) = sample.size, resized.size
    if not keep_ratio:
        assert (w, h) == (a, b)
    factors = np.array([w / width, h / height] * 2)
    np.testing.assert_allclose(resized.boxes, sample.boxes * factors, rtol=1e-5)
    np.testing.assert_array_equal(resized.boxes, resized.proposals)
    rows, columns = nearest(height, h), nearest(width, w)
    candidates = [sample.semantic[row][:, column] for row in rows for column in columns]
    assert np.any([resized.semantic == candidate for candidate in candidates], axis=0).all()
    assert resized.semantic.shape == resized.size
    assert resized.masks.size == resized.size
    slack = np.maximum(factors, 1) + 1e-3
    for box, mask in zip(resized.boxes, resized.masks.decode()):
        if mask.any():
            ys, xs = np.nonzero(mask)
            tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert (np.abs(tight - box) <= slack).all()


def test_resize_draws_one_of_the_sizes():
    sample = noise_sample(100, 150)
    resize = Resize(((133, 64), (133, 72), (133, 80)))
    rng = np.random.default_rng(0)
    assert {resize(sample, rng).size[0] for _ in range(60)} == {64, 72, 80}


def test_resize_draws_edges_from_ranges():
    """Long and short edges are drawn apart, ends included: a square's edge is the smaller of the two draws."""
    square = noise_sample(50, 50)
    resize = Resize(((10, 20), (12, 22)), draw="range")
    rng = np.random.default_rng(0)
    assert {resize(square, rng).size[0] for _ in range(200)} == {10, 11, 12}
    wide = noise_sample(20, 200)
    assert {resize(wide, rng).size[1] for _ in range(200)} == {20, 21, 22}


def test_scale_jitter():
    sample = noise_sample(100, 200)
    rng = np.random.default_rng(0)
    widths = {ScaleJitter((64, 64), (0.8, 1.2))(sample, rng).size[1] for _ in range(500)}
    assert widths == set(range(51, 77))  # 64 * 0.8 = 51.2 and 64 * 1.2 = 76.8, cut off
    assert ScaleJitter((64, 64), (0.5, 0.5), keep_ratio=False)(sample, rng).size == (32, 32)


@pytest.mark.parametrize(
    "transform",
    [
        Resize(((133, 80), (100, 64)), draw="range"),
        ScaleJitter((64, 64), (0.5, 2.0)),
        Flip(),
        Shift(),
        Expand(),
        PadTo((300, 300)),
        PadToMultiple(),
    ],
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(()), "pairs of positive edges"),
        (lambda: Resize(((0, 5),)), "pairs of positive edges"),
        (lambda: Resize(draw="any"), "'value' or 'range'"),
        (lambda: Resize(draw="range"), "between two sizes"),
        (lambda: Flip(direction="left"), "'horizontal', 'vertical' or 'diagonal'"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
