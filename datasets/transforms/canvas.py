"""Moving a sample onto another canvas: what cropping, padding and shifting have in common.

Shape letters: H x W pixels of the new canvas, N boxes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..sample import Sample

UNLABELLED = 255
"""Class of a semantic map where nothing is known."""


def place(
    sample: Sample, top: int, left: int, size: tuple[int, int], fill: tuple[float, float, float] = (0, 0, 0)
) -> Sample:
    """The sample on a canvas of (H, W), its origin at (top, left), which may be negative.

    Boxes and proposals are clipped to the canvas. Objects stay, even those left without area; proposals without area
    are dropped. The canvas is ``fill`` (RGB, rounded) outside the image, and the semantic map ``UNLABELLED``.
    """
    semantic = None
    if sample.semantic is not None:
        semantic = _pasted(sample.semantic, top, left, np.full(size, UNLABELLED, sample.semantic.dtype))
    proposals = None
    if sample.proposals is not None:
        proposals = moved_boxes(sample.proposals, top, left, size)
        proposals = proposals[has_area(proposals)]
    return replace(
        sample,
        image=_pasted(sample.image, top, left, _canvas(size, fill)),
        boxes=moved_boxes(sample.boxes, top, left, size),
        masks=None if sample.masks is None else sample.masks.place(top, left, size),
        semantic=semantic,
        proposals=proposals,
    )


def moved_boxes(boxes: np.ndarray, top: float, left: float, size: tuple[float, float]) -> np.ndarray:
    """Boxes (N, 4) xyxy moved by (left, top) and clipped to a canvas of (H, W)."""
    moved = boxes + np.array([left, top, left, top], np.float32)
    return clipped(moved, size)


def clipped(boxes: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Boxes (N, 4) xyxy clipped to a canvas of (H, W), as float32."""
    h, w = size
    return np.clip(boxes, 0, np.array([w, h, w, h], np.float32)).astype(np.float32, copy=False)


def larger_than(boxes: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """(N,) bool: which boxes (N, 4) xyxy are wider and higher than ``size`` (width, height)."""
    return (boxes[:, 2] - boxes[:, 0] > size[0]) & (boxes[:, 3] - boxes[:, 1] > size[1])


def has_area(boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: which boxes (N, 4) xyxy have width and height."""
    return larger_than(boxes, (0, 0))


def _canvas(size: tuple[int, int], fill: tuple[float, float, float]) -> np.ndarray:
    # Row by row: numpy fills three bytes at a time much more slowly.
    canvas = np.empty((size[0], 3 * size[1]), np.uint8)
    canvas[:] = np.tile(np.rint(fill).astype(np.uint8), size[1])
    return canvas.reshape(*size, 3)


def _pasted(source: np.ndarray, top: int, left: int, canvas: np.ndarray) -> np.ndarray:
    """Writes the part of ``source`` that lies on ``canvas`` into it, and returns it."""
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = min(top + source.shape[0], canvas.shape[0]), min(left + source.shape[1], canvas.shape[1])
    if y1 < y2 and x1 < x2:
        canvas[y1:y2, x1:x2] = source[y1 - top : y2 - top, x1 - left : x2 - left]
    return canvas
