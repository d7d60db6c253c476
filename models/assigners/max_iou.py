"""Assignment by the highest overlap.

Shape letters: P priors, N ground truths, M ignored regions of one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.overlaps import pairwise_iou
from .base import BACKGROUND, IGNORED, Assignment


@dataclass(frozen=True)
class MaxIoUAssigner:
    """A prior takes the ground truth that it overlaps most (Faster R-CNN, section 3.1.2).

    positive: from this IoU on. negative: background below this IoU, or from ``negative[0]`` to below
    ``negative[1]``; between negative and positive a prior is ignored. match_low_quality: every ground truth also takes
    the priors that overlap it most, if they do and their IoU is at least ``min_positive``: all of them, or the first
    where not ``match_all_best``. ignore: priors with more than this share of their area inside one ignored region are
    ignored; none where it is None.
    """

    positive: float = 0.5
    negative: float | tuple[float, float] = 0.5
    min_positive: float = 0.0
    match_low_quality: bool = True
    match_all_best: bool = True
    ignore: float | None = None

    def __call__(self, priors: Tensor, boxes: Tensor, ignore_boxes: Tensor | None = None) -> Assignment:
        """(P, 4) priors, (N, 4) ground truth and (M, 4) ignored xyxy boxes to their assignment."""
        overlaps = pairwise_iou(boxes, priors)
        if self.ignore is not None and ignore_boxes is not None and len(ignore_boxes) and len(priors):
            inside = pairwise_iou(priors, ignore_boxes, kind="iof").max(dim=1).values > self.ignore
            overlaps[:, inside] = -1
        return self.from_overlaps(overlaps)

    def from_overlaps(self, overlaps: Tensor) -> Assignment:
        """(N, P) overlaps, -1 at ignored priors, to the assignment."""
        count, priors = overlaps.shape
        matched = torch.full((priors,), IGNORED, dtype=torch.int64, device=overlaps.device)
        if count == 0 or priors == 0:
            return Assignment(matched.fill_(BACKGROUND), overlaps.new_zeros(priors))
        best, best_index = overlaps.max(dim=0)
        low, high = self.negative if isinstance(self.negative, tuple) else (0.0, self.negative)
        matched[(best >= low) & (best < high)] = BACKGROUND
        matched = torch.where(best >= self.positive, best_index, matched)
        if self.match_low_quality:
            own_best, own_index = overlaps.max(dim=1, keepdim=True)
            if self.match_all_best:
                taken = overlaps == own_best
            else:
                taken = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(1, own_index, True)
            # An object that overlaps nothing has no best prior: its zeros would be equal to all others.
            taken &= (own_best >= self.min_positive) & (own_best > 0)
            # A prior that is the best of several ground truths goes to the last of them.
            numbers = torch.arange(1, count + 1, device=overlaps.device)[:, None]
            last = (taken * numbers).max(dim=0).values
            matched = torch.where(last > 0, last - 1, matched)
        return Assignment(matched, best)
