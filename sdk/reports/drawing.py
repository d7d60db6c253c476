"""Boxes, masks and names drawn on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from ..models.structures import Detections


def color_of(label: int) -> tuple[int, int, int]:
    """An RGB colour for each label; neighbours differ by the golden angle in hue."""
    hue = np.array([[[int(label * 137.508 / 2) % 180, 200, 255]]], np.uint8)
    r, g, b = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return r, g, b


def draw_detections(
    image: np.ndarray, detections: Detections, classes: Sequence[str] | None = None, score_threshold: float = 0.3
) -> np.ndarray:
    """A copy of the (H, W, 3) uint8 RGB image with the detections of at least ``score_threshold``."""
    found = detections[detections.scores >= score_threshold].to("cpu")
    drawn = image.copy()
    if found.masks is not None:
        for mask, label in zip(found.masks.numpy().astype(bool), found.labels.tolist()):
            drawn[mask] = (0.5 * drawn[mask] + 0.5 * np.asarray(color_of(label))).astype(np.uint8)
    captions = [
        f"{label if classes is None else classes[label]} {score:.2f}"
        for label, score in zip(found.labels.tolist(), found.scores.tolist())
    ]
    return draw_boxes(drawn, found.boxes.numpy(), found.labels.numpy(), captions)


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
