"""Assignment of the nearest points.

Shape letters: P points, N ground truths of one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..boxes import box_centres, box_sizes
from .base import BACKGROUND, Assignment


@dataclass(frozen=True)
class PointAssigner:
    """An object takes the ``count`` points of its level that are nearest to its centre, in units of its own width and
    height (Yang et al., "RepPoints", section 3.2); a point that several take goes to the nearest of them.

    The level of an object is that whose stride is its size divided by ``scale``, rounded down to a power of two.
    """

    scale: float = 4.0
    count: int = 1

    def __call__(self, points: Tensor, strides: Tensor, boxes: Tensor) -> Assignment:
        """(P, 2) points, the (P,) strides of their levels and (N, 4) ground truth boxes to the assignment."""
        if len(boxes) == 0:
            background = torch.full((len(points),), BACKGROUND, dtype=torch.int64, device=points.device)
            return Assignment(background, points.new_zeros(len(points)))
        levels, sizes = strides.log2().int(), box_sizes(boxes).clamp(min=1e-6)
        wanted = (sizes / self.scale).log2().mean(dim=1).int().clamp(int(levels.min()), int(levels.max()))
        distances = ((points[:, None] - box_centres(boxes)) / sizes).norm(dim=2)
        distances = distances.masked_fill(levels[:, None] != wanted, float("inf"))
        nearest = distances.topk(min(self.count, len(points)), dim=0, largest=False)
        claims = torch.full_like(distances, float("inf")).scatter(0, nearest.indices, nearest.values)
        best, index = claims.min(dim=1)
        return Assignment(index.masked_fill(best.isinf(), BACKGROUND), (-best).exp())
