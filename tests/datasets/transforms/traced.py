"""Samples whose pixels say where they came from, and a double that scripts random draws.

Shape letters: H x W pixels of the image, N objects.
"""

import numpy as np
from hypothesis import strategies as st

from sdk.datasets.masks import BitMasks, PolygonMasks
from sdk.datasets.sample import Sample

INSIDE = 1
"""Blue value of every pixel of a traced image. No fill colour has it."""


def traced_sample(h, w, n, seed=0, kind=BitMasks, ignored=0) -> Sample:
    """Pixel (y, x) of the image is (y, x, 1). Objects are rectangles of whole pixels, labelled by their index; the
    first ``ignored`` of them are ignored. The semantic map is random; proposals are the boxes. H and W up to 255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    image = np.stack([y, x, np.full_like(x, INSIDE)], axis=2).astype(np.uint8)
    x1, y1 = rng.integers(0, w, n), rng.integers(0, h, n)
    x2, y2 = rng.integers(x1, w) + 1, rng.integers(y1, h) + 1
    boxes = np.stack([x1, y1, x2, y2], axis=1).astype(np.float32).reshape(-1, 4)
    bits = np.zeros((n, h, w), np.uint8)
    for mask, (left, top, right, bottom) in zip(bits, boxes.astype(int)):
        mask[top:bottom, left:right] = 1
    if kind is PolygonMasks:
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 1, 4, 2).astype(np.float64)
        masks = PolygonMasks(tuple(tuple(parts) for parts in corners), (h, w))
    else:
        masks = BitMasks(bits)
    semantic = rng.integers(0, 200, (h, w), dtype=np.uint8)
    return Sample(
        image,
        boxes,
        np.arange(n),
        np.arange(n) < ignored,
        seed,
        masks=masks,
        semantic=semantic,
        proposals=boxes.copy(),
    )


def sources(after: Sample):
    """(H, W) bool: which pixels show the traced image; and their old y and x."""
    return after.image[..., 2] == INSIDE, after.image[..., 0].astype(int), after.image[..., 1].astype(int)


def assert_follows(before: Sample, after: Sample):
    """Masks and semantic map went where the pixels went, object by object, and the sample is in good order."""
    inside, y, x = sources(after)
    assert after.image.dtype == np.uint8
    assert after.image.flags.c_contiguous
    assert after.boxes.dtype == np.float32
    assert after.boxes.shape == (len(after.labels), 4)
    assert after.ignore.shape == after.labels.shape
    np.testing.assert_array_equal(after.ignore, before.ignore[after.labels])
    assert after.masks.size == after.size
    assert len(after.masks) == len(after.boxes)
    expected = before.masks.decode()[after.labels][:, y.clip(0, before.size[0] - 1), x.clip(0, before.size[1] - 1)]
    np.testing.assert_array_equal(after.masks.decode(), expected * inside)
    outside_is_unlabelled = np.where(inside, before.semantic[y % before.size[0], x % before.size[1]], 255)
    np.testing.assert_array_equal(after.semantic, outside_is_unlabelled)


def tight_box(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def assert_tight(after: Sample):
    """Boxes are those around the masks, as they are for whole-pixel rectangles."""
    masks = after.masks.decode()
    for box, mask in zip(after.boxes, masks):
        np.testing.assert_array_equal(box, tight_box(mask))


def copied(sample: Sample):
    """The arrays of a sample, to see later that nothing wrote into it."""
    return [
        np.array(part)
        for part in (sample.image, sample.boxes, sample.labels, sample.ignore, sample.semantic, sample.masks.decode())
    ]


@st.composite
def traced_samples(draw, least=0):
    return traced_sample(
        draw(st.integers(1, 200)),
        draw(st.integers(1, 200)),
        draw(st.integers(least, 5)),
        draw(st.integers(0, 2**16)),
        draw(st.sampled_from([BitMasks, PolygonMasks])),
        draw(st.integers(0, 2)),
    )


class Scripted:
    """A random generator whose draws are given: ``random`` in order, ``uniform`` as positions within its range."""

    def __init__(self, random=(), uniform=(), permutation=()):
        self._random, self._uniform, self._permutation = list(random), list(uniform), permutation

    def random(self, size=None):
        if size is None:
            return self._random.pop(0)
        return np.array([self._random.pop(0) for _ in range(size)])

    def uniform(self, low, high):
        return low + (high - low) * self._uniform.pop(0)

    def permutation(self, count):
        assert sorted(self._permutation) == list(range(count))
        return np.array(self._permutation)
