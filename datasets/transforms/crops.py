"""Transforms that cut a part out of the image.

Shape letters: N boxes, T windows tried at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..sample import Sample
from .canvas import clipped, has_area, moved_boxes, place
from .preprocessing import IMAGENET_MEAN


@dataclass(frozen=True)
class RandomCrop:
    """Crops at a random place; an image smaller than the crop keeps its size. Objects outside are dropped.

    kind: ``absolute`` crops to ``size`` (width, height); ``absolute_range`` draws width and height from
    ``size[0]``..``size[1]``. allow_empty: whether a crop without objects is accepted; otherwise the crop is drawn
    again so that it touches one of them, taken at random. Images that have no object are cropped all the same.
    """

    size: tuple[int, int]
    kind: str = "absolute"
    allow_empty: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("absolute", "absolute_range"):
            raise ValueError(f"RandomCrop.kind: expected 'absolute' or 'absolute_range', found {self.kind!r}")
        if min(self.size) < 1 or (self.kind == "absolute_range" and self.size[0] > self.size[1]):
            raise ValueError(f"RandomCrop.size: expected positive edges, ranges in order, found {self.size!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        h, w = self._draw_size(sample.size, rng)
        top = int(rng.integers(sample.size[0] - h, endpoint=True))
        left = int(rng.integers(sample.size[1] - w, endpoint=True))
        boxes = clipped(sample.boxes, sample.size)
        counted = has_area(boxes) & ~sample.ignore
        if not self.allow_empty and counted.any():
            inside = has_area(moved_boxes(sample.boxes, -top, -left, (h, w)))
            if not (inside & counted).any():
                x1, y1, x2, y2 = boxes[rng.choice(np.flatnonzero(counted))]
                top = _start_touching(y1, y2, h, sample.size[0], rng)
                left = _start_touching(x1, x2, w, sample.size[1], rng)
        kept = has_area(moved_boxes(sample.boxes, -top, -left, (h, w)))
        return place(sample.keep(kept), -top, -left, (h, w))

    def _draw_size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        if self.kind == "absolute":
            return min(self.size[1], size[0]), min(self.size[0], size[1])
        low, high = self.size
        h, w = (int(rng.integers(min(edge, low), min(edge, high), endpoint=True)) for edge in size)
        return h, w


@dataclass(frozen=True)
class MinIoUCrop:
    """SSD's crop (section 2.2, https://arxiv.org/abs/1512.02325).

    Leaves the image whole, cuts anywhere, or cuts so that the window's IoU with every box is at least one of ``ious``,
    each equally likely. Windows have sides of ``min_size`` to 1 times the image's and an aspect ratio of 1/2 to 2.
    Objects whose center lies outside are dropped; at least one stays.
    """

    ious: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    min_size: float = 0.3

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        while True:
            mode = int(rng.integers(len(self.ious) + 2))
            if mode == 0:
                return sample
            min_iou = 0.0 if mode == 1 else self.ious[mode - 2]
            windows = self._draw_windows(sample.size, rng)
            inside = _center_inside(sample.boxes, windows)
            if len(sample.boxes):
                good = (_iou(windows, sample.boxes).min(axis=1) >= min_iou) & inside.any(axis=1)
            else:
                good = np.ones(len(windows), bool)
            if good.any():
                first = int(good.argmax())
                left, top, right, bottom = (int(v) for v in windows[first])
                return place(sample.keep(inside[first]), -top, -left, (bottom - top, right - left))

    def _draw_windows(self, size: tuple[int, int], rng: np.random.Generator, tries: int = 50) -> np.ndarray:
        """(T, 4) xyxy whole pixels: the admissible ones of ``tries`` windows."""
        h, w = size
        widths, heights = rng.uniform(self.min_size, 1, (tries, 2)).T * np.array([[w], [h]])
        lefts, tops = rng.uniform(size=(tries, 2)).T * np.array([w - widths, h - heights])
        windows = np.stack([lefts, tops, lefts + widths, tops + heights], axis=1).astype(np.int64)
        admissible = (heights >= widths / 2) & (heights <= widths * 2)
        return windows[admissible & has_area(windows)]


@dataclass(frozen=True)
class CenterCropPad:
    """CornerNet's crop (https://arxiv.org/abs/1808.01244, section 4.1): a window of ``size`` (width, height) times one
    of ``ratios`` around a random center, filled with ``fill`` (RGB) where it leaves the image.

    border: the center keeps this distance in pixels from the image's edges, less in small images. Objects whose center
    lies outside are dropped; one stays if any does in 50 windows of some ratio, and otherwise the image stays whole.
    """

    size: tuple[int, int] = (511, 511)
    ratios: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    border: int = 128
    fill: tuple[float, float, float] = IMAGENET_MEAN

    def __call__(self, sample: Sample, rng: np.random.Generator, tries: int = 50) -> Sample:
        h, w = sample.size
        border_x, border_y = self._border(w), self._border(h)
        for ratio in rng.permutation(self.ratios):
            size = int(self.size[1] * ratio), int(self.size[0] * ratio)
            half = np.array([size[1] // 2, size[0] // 2])
            centers = np.stack(
                [rng.integers(border_x, w - border_x, tries), rng.integers(border_y, h - border_y, tries)], axis=1
            )
            visible = np.concatenate([np.maximum(centers - half, 0), np.minimum(centers + half, [w, h])], axis=1)
            inside = _center_inside(sample.boxes, visible)
            good = inside.any(axis=1) if len(sample.boxes) else np.ones(tries, bool)
            if good.any():
                first = int(good.argmax())
                left, top = (int(v) for v in half - centers[first])
                kept = inside[first] & has_area(moved_boxes(sample.boxes, top, left, size))
                return place(sample.keep(kept), top, left, size, self.fill)
        return sample

    def _border(self, edge: int) -> int:
        """``border``, halved until less than half of ``edge``."""
        border = self.border
        while 2 * border >= edge:
            border //= 2
        return border


def _start_touching(low: float, high: float, length: int, edge: int, rng: np.random.Generator) -> int:
    """Where a window of ``length`` pixels starts within 0..edge so that it meets low..high in more than a point."""
    first, last = math.floor(low) - length + 1, math.ceil(high) - 1
    return int(rng.integers(max(first, 0), min(last, edge - length), endpoint=True))


def _center_inside(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """(T, N) bool: which boxes (N, 4) have their center within which windows (T, 4), edges excluded."""
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).T
    left, top, right, bottom = windows[:, :, None].transpose(1, 0, 2)
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def _iou(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(T, N) intersection over union of windows (T, 4) and boxes (N, 4)."""
    low = np.maximum(windows[:, None, :2], boxes[None, :, :2])
    high = np.minimum(windows[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (windows, boxes)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-6)
