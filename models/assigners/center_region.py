"""Assignment of the middle of each object.

Shape letters: P priors, N ground truths, M ignored regions of one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.overlaps import pairwise_iou
from ..boxes import box_centres, box_sizes
from .base import BACKGROUND, IGNORED, Assignment


def scaled_boxes(boxes: Tensor, scale: float) -> Tensor:
    """(N, 4) xyxy boxes, ``scale`` times as wide and high around the same centres."""
    centre, half = box_centres(boxes), box_sizes(boxes) * (scale / 2)
    return torch.cat((centre - half, centre + half), dim=1)


def centres_inside(priors: Tensor, boxes: Tensor) -> Tensor:
    """(P, N) bool: the centre of a prior lies inside a box."""
    centre = box_centres(priors)[:, None]
    return torch.minimum(centre - boxes[:, :2], boxes[:, 2:] - centre).amin(dim=2) > 0


@dataclass(frozen=True)
class CenterRegionAssigner:
    """Positive in the core of an object, neither positive nor negative for its class in the shadow around it (Zhu et
    al., "Feature Selective Anchor-Free Module for Single-Shot Object Detection", section 3.2).

    core and shadow: size of these regions as shares of the object's. least_share: a prior lies in a region when more
    than this share of its area does. ignored: the share of an ignored region whose priors are ignored.
    """

    core: float = 0.2
    shadow: float = 0.2
    least_share: float = 0.01
    ignored: float = 0.5

    def __call__(
        self, priors: Tensor, boxes: Tensor, labels: Tensor, ignore_boxes: Tensor | None = None
    ) -> tuple[Assignment, Tensor]:
        """The assignment of (P, 4) priors to (N, 4) boxes of (N,) labels, and the (P, N) bool shadows.

        Where cores overlap the smaller object wins and the others cast a shadow. A prior in the shadow of another
        object of its own class is background.
        """
        matched = torch.full((len(priors),), BACKGROUND, dtype=torch.int64, device=priors.device)
        in_core = centres_inside(priors, boxes) & (
            pairwise_iou(priors, scaled_boxes(boxes, self.core), kind="iof") > self.least_share
        )
        shadow = ~in_core & (pairwise_iou(priors, scaled_boxes(boxes, self.shadow), kind="iof") > self.least_share)
        if len(boxes):
            area = box_sizes(boxes).prod(dim=1).expand_as(in_core)
            smallest = area.masked_fill(~in_core, float("inf")).argmin(dim=1)
            matched = torch.where(in_core.any(dim=1), smallest, matched)
            own = torch.zeros_like(in_core).scatter_(1, smallest[:, None], True)
            shadow = shadow | (in_core & ~own)
        if ignore_boxes is not None and len(ignore_boxes):
            inside = centres_inside(priors, scaled_boxes(ignore_boxes, self.ignored)).any(dim=1)
            matched = matched.masked_fill(inside, IGNORED)
        if len(boxes):
            overshadowed = (shadow & (labels[matched.clamp(min=0)][:, None] == labels)).any(dim=1) & (matched >= 0)
            matched = matched.masked_fill(overshadowed, BACKGROUND)
        return Assignment(matched, in_core.any(dim=1).to(boxes.dtype)), shadow
