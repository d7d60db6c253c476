"""Assignment of locations by the anchors that could stand there.

Shape letters: P locations, A shapes of a location, N ground truths of one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.overlaps import pairwise_iou
from .base import IGNORED, Assignment
from .max_iou import MaxIoUAssigner


@dataclass(frozen=True)
class ApproxMaxIoUAssigner:
    """A location overlaps an object as much as the best of several sampled shapes does (Wang et al., "Region Proposal
    by Guided Anchoring", section 3.4), and is assigned by these overlaps as ``rule`` says."""

    rule: MaxIoUAssigner

    def __call__(self, shapes: Tensor, usable: Tensor, boxes: Tensor) -> Assignment:
        """(P, A, 4) xyxy shapes and (N, 4) ground truth boxes to the assignment of the (P,) bool usable locations; the
        others are ignored."""
        candidates = shapes[usable]
        overlaps = pairwise_iou(boxes, candidates.flatten(0, 1)).reshape(len(boxes), *candidates.shape[:2])
        found = self.rule.from_overlaps(overlaps.amax(dim=2))
        matched = torch.full((len(shapes),), IGNORED, dtype=torch.int64, device=shapes.device)
        matched[usable] = found.matched
        best = shapes.new_zeros(len(shapes))
        best[usable] = found.overlaps
        return Assignment(matched, best)
