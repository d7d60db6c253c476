"""Assignment to the anchors of one cell (YOLOv3).

Shape letters: P anchors, N ground truths of one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.overlaps import pairwise_iou
from .base import BACKGROUND, IGNORED, Assignment


@dataclass(frozen=True)
class GridAssigner:
    """A ground truth takes the anchors of the cells that its centre lies in (YOLOv3, section 2.1).

    Such an anchor is positive where its IoU is above ``positive``, and where it is the ground truth's best one.
    Every other anchor is background where its best IoU is at most ``negative``, else ignored.
    """

    positive: float = 0.5
    negative: float = 0.5

    def __call__(self, priors: Tensor, responsible: Tensor, boxes: Tensor) -> Assignment:
        """(P, 4) anchors, (P,) bool whether a centre lies in their cell, and (N, 4) boxes to the assignment."""
        matched = torch.full((len(priors),), IGNORED, dtype=torch.int64, device=priors.device)
        if not len(boxes):
            return Assignment(matched.fill_(BACKGROUND), priors.new_zeros(len(priors)))
        overlaps = pairwise_iou(boxes, priors)
        matched[overlaps.max(dim=0).values <= self.negative] = BACKGROUND
        overlaps[:, ~responsible] = -1
        best, index = overlaps.max(dim=0)
        matched = torch.where(best > self.positive, index, matched)
        own_best = overlaps.max(dim=1, keepdim=True).values
        taken = (overlaps == own_best) & responsible & (own_best > 0)
        numbers = torch.arange(1, len(boxes) + 1, device=priors.device)[:, None]
        last = (taken * numbers).max(dim=0).values
        return Assignment(torch.where(last > 0, last - 1, matched), best)
