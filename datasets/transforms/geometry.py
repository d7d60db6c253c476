"""Transforms that move pixels and annotations together: resizing, mirroring, shifting and padding.

Shape letters: H x W pixels before, h x w after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..sample import Sample
from .canvas import clipped, larger_than, moved_boxes, place
from .preprocessing import IMAGENET_MEAN, fitted_size, resize_image


@dataclass(frozen=True)
class Resize:
    """Resizes to one of several sizes.

    sizes: (long, short) edge bounds in any order where ``keep_ratio``, else (width, height) exactly.
    draw: ``value`` takes one of ``sizes``; ``range`` draws the long edge uniformly between the long edges of two of
    them, and the short edge between their short ones, whole pixels, ends included.
    """

    sizes: tuple[tuple[int, int], ...] = ((1333, 800),)
    keep_ratio: bool = True
    draw: str = "value"

    def __post_init__(self) -> None:
        if not self.sizes or any(len(size) != 2 or min(size) < 1 for size in self.sizes):
            raise ValueError(f"Resize.sizes: expected pairs of positive edges, found {self.sizes!r}")
        if self.draw not in ("value", "range"):
            raise ValueError(f"Resize.draw: expected 'value' or 'range', found {self.draw!r}")
        if self.draw == "range" and len(self.sizes) != 2:
            raise ValueError(f"Resize.sizes: a range lies between two sizes, found {self.sizes!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.draw == "range":
            (long_a, short_a), (long_b, short_b) = ((max(size), min(size)) for size in self.sizes)
            drawn = (
                int(rng.integers(min(long_a, long_b), max(long_a, long_b), endpoint=True)),
                int(rng.integers(min(short_a, short_b), max(short_a, short_b), endpoint=True)),
            )
        else:
            drawn = self.sizes[int(rng.integers(len(self.sizes)))]
        return resized(sample, drawn, self.keep_ratio)


@dataclass(frozen=True)
class ScaleJitter:
    """Resizes to ``size`` times a factor drawn uniformly from ``ratio_range``; ``size`` as in ``Resize``."""

    size: tuple[int, int]
    ratio_range: tuple[float, float]
    keep_ratio: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        ratio = rng.uniform(*self.ratio_range)
        drawn = (max(int(self.size[0] * ratio), 1), max(int(self.size[1] * ratio), 1))
        return resized(sample, drawn, self.keep_ratio)


@dataclass(frozen=True)
class Flip:
    """Mirrors ``horizontal`` (left becomes right), ``vertical`` or ``diagonal`` (both)."""

    probability: float = 0.5
    direction: str = "horizontal"

    def __post_init__(self) -> None:
        if self.direction not in ("horizontal", "vertical", "diagonal"):
            raise ValueError(
                f"Flip.direction: expected 'horizontal', 'vertical' or 'diagonal', found {self.direction!r}"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        code = {"horizontal": 1, "vertical": 0, "diagonal": -1}[self.direction]
        return replace(
            sample,
            image=cv2.flip(sample.image, code),
            boxes=self._mirrored(sample.boxes, sample.size),
            masks=None if sample.masks is None else sample.masks.flip(self.direction),
            semantic=None if sample.semantic is None else cv2.flip(sample.semantic, code),
            proposals=None if sample.proposals is None else self._mirrored(sample.proposals, sample.size),
        )

    def _mirrored(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        boxes = boxes.copy()
        if self.direction != "vertical":
            boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
        if self.direction != "horizontal":
            boxes[:, [1, 3]] = size[0] - boxes[:, [3, 1]]
        return boxes


@dataclass(frozen=True)
class Shift:
    """Moves the image by up to ``max_pixels`` in each direction within its frame, black where it left (YOLOF,
    https://arxiv.org/abs/2103.09460).

    Objects whose box is not wider and higher than ``min_size`` afterwards are dropped; a shift that would leave none
    is not done.
    """

    probability: float = 0.5
    max_pixels: int = 32
    min_size: float = 1

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        left, top = (int(v) for v in rng.integers(-self.max_pixels, self.max_pixels, size=2, endpoint=True))
        boxes = moved_boxes(sample.boxes, top, left, sample.size)
        kept = larger_than(boxes, (self.min_size, self.min_size))
        if not sample.ignore.all() and not (kept & ~sample.ignore).any():
            return sample
        return place(sample.keep(kept), top, left, sample.size)


@dataclass(frozen=True)
class Expand:
    """Places the image somewhere on a canvas of colour ``fill`` (RGB) whose sides are ``ratio_range`` times as long
    (SSD, section 3.6, https://arxiv.org/abs/1512.02325)."""

    ratio_range: tuple[float, float] = (1, 4)
    probability: float = 0.5
    fill: tuple[float, float, float] = IMAGENET_MEAN

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        h, w = sample.size
        ratio = rng.uniform(*self.ratio_range)
        left, top = int(rng.uniform(0, w * ratio - w)), int(rng.uniform(0, h * ratio - h))
        return place(sample, top, left, (int(h * ratio), int(w * ratio)), self.fill)


@dataclass(frozen=True)
class PadTo:
    """Pads on the right and bottom to at least ``size`` (width, height) with colour ``fill`` (RGB).

    The padding becomes part of the image. With the mean as colour it is about zero after normalization.
    """

    size: tuple[int, int]
    fill: tuple[float, float, float] = IMAGENET_MEAN

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        h, w = sample.size
        return place(sample, 0, 0, (max(h, self.size[1]), max(w, self.size[0])), self.fill)


@dataclass(frozen=True)
class PadToMultiple:
    """Pads on the right and bottom to multiples of ``divisor`` with colour ``fill`` (RGB).

    Only for what follows in the same list of transforms: batches are padded anyway.
    """

    divisor: int = 32
    fill: tuple[float, float, float] = (0, 0, 0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        h, w = (-(-edge // self.divisor) * self.divisor for edge in sample.size)
        return place(sample, 0, 0, (h, w), self.fill)


def resized(sample: Sample, size: tuple[int, int], keep_ratio: bool) -> Sample:
    """The sample within (long, short) edge bounds ``size`` where ``keep_ratio``, else at (width, height) exactly.

    Boxes are scaled by w / W and h / H and clipped to the image.
    """
    h, w = fitted_size(sample.size, size) if keep_ratio else (size[1], size[0])
    x, y = w / sample.size[1], h / sample.size[0]
    factors = np.array([x, y, x, y], np.float32)
    semantic = sample.semantic
    if semantic is not None:
        semantic = cv2.resize(semantic, (w, h), interpolation=cv2.INTER_NEAREST)
    return replace(
        sample,
        image=resize_image(sample.image, (h, w)),
        boxes=clipped(sample.boxes * factors, (h, w)),
        masks=None if sample.masks is None else sample.masks.resize((h, w)),
        semantic=semantic,
        proposals=None if sample.proposals is None else clipped(sample.proposals * factors, (h, w)),
        scale=(sample.scale[0] * x, sample.scale[1] * y),
    )
