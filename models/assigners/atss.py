"""Assignment by the statistics of the overlaps around each object.

Shape letters: L levels, P priors of all levels, N ground truths of one image, C candidates of a ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.overlaps import pairwise_iou
from ..boxes import box_centres
from .base import BACKGROUND, Assignment


@dataclass(frozen=True)
class ATSSAssigner:
    """Adaptive training sample selection (Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free
    Detection via Adaptive Training Sample Selection", algorithm 1).

    Candidates of an object are on each level the ``topk`` priors whose centres are nearest to its own. Those become
    positive whose IoU reaches the mean plus the standard deviation of the candidates' and whose centre lies inside
    the object; a prior that several objects claim goes to the one that it overlaps most.
    """

    topk: int = 9

    def __call__(self, levels: Sequence[Tensor], boxes: Tensor) -> Assignment:
        """(P, 4) xyxy priors, level by level, and (N, 4) ground truth boxes to the assignment of all P."""
        priors = torch.cat(list(levels))
        if len(boxes) == 0:
            background = torch.full((len(priors),), BACKGROUND, dtype=torch.int64, device=priors.device)
            return Assignment(background, priors.new_zeros(len(priors)))
        overlaps, centres = pairwise_iou(priors, boxes), box_centres(priors)
        distances = (centres[:, None] - box_centres(boxes)[None]).norm(dim=2)
        candidates, start = [], 0
        for level in levels:
            nearest = distances[start : start + len(level)].topk(min(self.topk, len(level)), dim=0, largest=False)
            candidates.append(nearest.indices + start)
            start += len(level)
        candidate = torch.cat(candidates)
        near = overlaps.gather(0, candidate)
        points = centres[candidate]
        inside = torch.minimum(points - boxes[:, :2], boxes[:, 2:] - points).amin(dim=2) > 0.01
        chosen = inside & (near >= near.mean(dim=0) + near.std(dim=0))
        claims = torch.full_like(overlaps, -1).scatter(0, candidate, near.masked_fill(~chosen, -1))
        best, index = claims.max(dim=1)
        return Assignment(index.masked_fill(best < 0, BACKGROUND), overlaps.max(dim=1).values)
