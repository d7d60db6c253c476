"""Transforms that leave the image alone and change its annotations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..sample import Sample
from .canvas import larger_than


@dataclass(frozen=True)
class DropSmallBoxes:
    """Drops objects whose box is not wider and higher than ``min_size`` (width, height) pixels."""

    min_size: tuple[float, float] = (4.0, 4.0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return sample.keep(larger_than(sample.boxes, self.min_size))


@dataclass(frozen=True)
class BoxesFromMasks:
    """Replaces each box by the tight one around its mask; objects without a mask pixel are dropped.

    Worth its time after crops and rotations, which leave boxes larger than what is visible. Decodes the masks.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.masks is None:
            raise ValueError(f"BoxesFromMasks: image {sample.image_id!r} has no masks")
        boxes, visible = mask_boxes(sample.masks.decode())
        return replace(sample, boxes=boxes).keep(visible)


@dataclass(frozen=True)
class TopProposals:
    """Keeps the first ``count`` proposals."""

    count: int = 2000

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.proposals is None:
            raise ValueError(f"TopProposals: image {sample.image_id!r} has no proposals")
        return replace(sample, proposals=sample.proposals[: self.count])


def mask_boxes(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tight boxes (N, 4) float32 xyxy around masks (N, H, W), ends exclusive, and (N,) bool: which have a pixel."""
    boxes = np.zeros((len(masks), 4), np.float32)
    visible = np.zeros(len(masks), bool)
    for i, mask in enumerate(masks):
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        visible[i] = len(rows) > 0
        if visible[i]:
            boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes, visible
