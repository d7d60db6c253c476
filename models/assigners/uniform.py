"""The same number of priors for every object: Chen et al., "You Only Look One-level Feature", section 4.2.

Shape letters: P priors, N ground truths of one image, T matches of a ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.overlaps import pairwise_iou
from ..boxes import box_centres, box_sizes
from .base import BACKGROUND, IGNORED, Assignment


@dataclass(frozen=True)
class UniformAssigner:
    """A ground truth takes the ``matches`` nearest predicted boxes and the ``matches`` nearest anchors.

    Pairs whose anchor overlaps the object by less than ``ignore_positive`` are ignored, as is the background of
    predictions that overlap any object by more than ``ignore_negative``.
    """

    matches: int = 4
    ignore_positive: float = 0.15
    ignore_negative: float = 0.7

    def __call__(self, predicted: Tensor, anchors: Tensor, boxes: Tensor) -> tuple[Assignment, Tensor, Tensor]:
        """(P, 4) predicted boxes and anchors and (N, 4) ground truth to the assignment and the pairs that a box is
        learnt from: prior and ground truth of each, (2 T N,) or fewer; a prior may stand in several."""
        matched = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
        if not len(boxes):
            none = matched[:0]
            return Assignment(matched, anchors.new_zeros(len(anchors))), none, none
        wanted = centre_and_size(boxes)
        count = min(self.matches, len(anchors))
        nearest = [
            torch.cdist(centre_and_size(these), wanted, p=1).topk(count, dim=0, largest=False).indices
            for these in (predicted, anchors)
        ]
        prior = torch.cat(nearest, dim=1).flatten()
        truth = torch.arange(len(boxes), device=anchors.device).repeat(2 * count)
        overlaps = pairwise_iou(anchors, boxes)
        matched[pairwise_iou(predicted, boxes).amax(dim=1) > self.ignore_negative] = IGNORED
        near = overlaps[prior, truth] >= self.ignore_positive
        # Of several pairs with one prior the last decides.
        order = torch.arange(len(prior), device=anchors.device)
        last = torch.full_like(matched, -1).scatter_reduce(0, prior, order, "amax")
        taken = last >= 0
        matched[taken] = torch.where(near, truth, IGNORED)[last[taken]]
        return Assignment(matched, overlaps.amax(dim=1)), prior[near], truth[near]


def centre_and_size(boxes: Tensor) -> Tensor:
    """(N, 4) xyxy boxes to centre x and y, width and height."""
    return torch.cat((box_centres(boxes), box_sizes(boxes)), dim=1)
