"""Boxes, masks and names drawn on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.structures import Detections


def color_of(label: int) -> tuple[int, int, int]:
    """An RGB colour for each label; neighbours differ by the golden angle in hue."""
    hue = np.array([[[int(label * 137.508 / 2) % 180, 200, 255]]], np.uint8)
    r, g, b = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return r, g, b


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    classes: Sequence[str] | None = None,
    score_threshold: float = 0.3,
    track_ids: Tensor | None = None,
) -> np.ndarray:
    """A copy of the (H, W, 3) uint8 RGB image with the detections of at least ``score_threshold``.

    track_ids: (N,) the number of each object in a film, -1 for none.
    """
    keep = detections.scores >= score_threshold
    found = detections[keep].to("cpu")
    numbers = [-1] * len(found) if track_ids is None else track_ids[keep].tolist()
    drawn = image.copy()
    if found.masks is not None:
        for mask, label in zip(found.masks.numpy().astype(bool), found.labels.tolist()):
            drawn[mask] = (0.5 * drawn[mask] + 0.5 * np.asarray(color_of(label))).astype(np.uint8)
    captions = [
        f"{label if classes is None else classes[label]}{'' if number < 0 else f' #{number}'} {score:.2f}"
        for label, score, number in zip(found.labels.tolist(), found.scores.tolist(), numbers)
    ]
    return draw_boxes(drawn, found.boxes.numpy(), found.labels.numpy(), captions)


ANNOTATED, CORRECT, WRONG = (255, 255, 255), (40, 220, 90), (255, 70, 70)
"""Colours of what is annotated, of what is right or suggested, and of what is wrong."""
CROP = 200
"""Side of a crop, in pixels."""
WIDEST = 480
"""Longer side of a whole image in a page, in pixels."""


@dataclass(frozen=True)
class Outline:
    """A box (x1, y1, x2, y2) in pixels of its image, and its RGB colour."""

    box: tuple[float, float, float, float]
    color: tuple[int, int, int]


def crop(image: np.ndarray, around: Sequence[float], outlines: Sequence[Outline]) -> np.ndarray:
    """(CROP, CROP, 3) uint8: the surroundings of a box (x1, y1, x2, y2) of the (H, W, 3) uint8 image, with outlines."""
    x1, y1, x2, y2 = around
    side = max(x2 - x1, y2 - y1, 16) * 1.8
    left, top, scale = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2, CROP / side
    # Only what is seen is scaled: warping does not average over the pixels that it leaves out.
    a, b = max(0, int(left)), max(0, int(top))
    part = image[b : max(b + 1, int(top + side) + 1), a : max(a + 1, int(left + side) + 1)]
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        moved = np.array([[1, 0, (a - left) * scale], [0, 1, (b - top) * scale]])
    else:
        moved = np.array([[scale, 0, (a - left) * scale], [0, scale, (b - top) * scale]])
    made = cv2.warpAffine(part, moved, (CROP, CROP), flags=cv2.INTER_LINEAR, borderValue=(128, 128, 128))
    return _outlined(made, outlines, np.array([left, top]), scale)


def shrunk(image: np.ndarray, outlines: Sequence[Outline]) -> np.ndarray:
    """The whole (H, W, 3) uint8 image, its longer side at most ``WIDEST``, with outlines."""
    scale = min(1.0, WIDEST / max(image.shape[:2]))
    made = image.copy() if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return _outlined(made, outlines, np.zeros(2), scale)


def _outlined(image: np.ndarray, outlines: Sequence[Outline], start: np.ndarray, scale: float) -> np.ndarray:
    """Draws boxes on an image whose origin lies at ``start`` (x, y), dark around, so that they show on any ground."""
    drawn = np.ascontiguousarray(image)
    for dark, width in ((True, 4), (False, 2)):
        for one in outlines:
            ends = (np.asarray(one.box, np.float64).reshape(2, 2) - start) * scale
            (a, b), (c, d) = np.clip(np.round(ends), -(2**14), 2**14).astype(int).tolist()
            cv2.rectangle(drawn, (a, b), (c, d), (0, 0, 0) if dark else one.color, width)
    return drawn


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """A copy of the (H, W, 3) uint8 RGB image with (N, 4) xyxy boxes, coloured by label, and their captions."""
    drawn = np.ascontiguousarray(image).copy()
    scale = max(0.35, min(drawn.shape[:2]) / 1200)
    for box, label, caption in zip(boxes, labels, captions):
        x1, y1, x2, y2 = (round(float(value)) for value in box)
        color = color_of(int(label))
        cv2.rectangle(drawn, (x1, y1), (x2, y2), color, max(1, round(2 * scale)))
        (width, height), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        top = max(y1, height + 4)
        cv2.rectangle(drawn, (x1, top - height - 4), (x1 + width + 2, top), color, -1)
        cv2.putText(drawn, caption, (x1 + 1, top - 3), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return drawn
