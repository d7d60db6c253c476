"""How boxes are written as the numbers that a network regresses.

Shape letters: N boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .boxes import clip_boxes
from .structures import ImageSize


class BoxCoder(Protocol):
    """Relative regression: what turns a prior box into a target box, and back."""

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy priors and boxes to (N, D) regression targets."""
        ...

    def decode(self, priors: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(N, 4) priors and (N, D) codes to (N, 4) boxes, clipped to an image of (h, w) where given."""
        ...


@dataclass(frozen=True)
class DeltaCoder:
    """Shift of the centre in prior sizes and log ratio of the sizes (R-CNN, appendix C), normalized.

    max_ratio: predicted sizes are held to ``1 / max_ratio .. max_ratio`` times the prior's.
    clip: whether decoded boxes are cut to the image. center_limit: the centre moves by at most so many pixels, and only
    growth is held to ``max_ratio`` (YOLOF).
    """

    means: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    max_ratio: float = 1000 / 16
    clip: bool = True
    center_limit: float | None = None

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy priors and boxes to (N, 4) deltas (dx, dy, dw, dh)."""
        priors, boxes = priors.float(), boxes.float()
        prior_centre, prior_size = (priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2]
        centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        deltas = torch.cat(((centre - prior_centre) / prior_size, (size / prior_size).log()), dim=1)
        return (deltas - deltas.new_tensor(self.means)) / deltas.new_tensor(self.stds)

    def decode(self, priors: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(..., 4) xyxy priors and deltas to (..., 4) xyxy boxes; ``size`` is the image's (h, w)."""
        deltas = codes * codes.new_tensor(self.stds) + codes.new_tensor(self.means)
        prior_centre, prior_size = (priors[..., :2] + priors[..., 2:]) / 2, priors[..., 2:] - priors[..., :2]
        limit = abs(math.log(self.max_ratio))
        shift, growth = prior_size * deltas[..., :2], deltas[..., 2:].clamp(max=limit)
        if self.center_limit is None:
            growth = growth.clamp(min=-limit)
        else:
            shift = shift.clamp(-self.center_limit, self.center_limit)
        centre, half = prior_centre + shift, prior_size * growth.exp() / 2
        boxes = torch.cat((centre - half, centre + half), dim=-1)
        return boxes if size is None or not self.clip else clip_boxes(boxes, size)


@dataclass(frozen=True)
class DistanceCoder:
    """Distances from a point to the four sides (FCOS, eq. 1)."""

    clip: bool = True

    def encode(self, points: Tensor, boxes: Tensor) -> Tensor:
        """(N, 2) points and (N, 4) boxes to (N, 4) distances (left, top, right, bottom)."""
        return torch.cat((points - boxes[:, :2], boxes[:, 2:] - points), dim=1)

    def decode(self, points: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(..., 2) points and (..., 4) distances to (..., 4) xyxy boxes; ``size`` is the image's (h, w)."""
        boxes = torch.cat((points - codes[..., :2], points + codes[..., 2:]), dim=-1)
        return boxes if size is None or not self.clip else clip_boxes(boxes, size)


@dataclass(frozen=True)
class TBLRCoder:
    """Distances from a prior's centre to the four sides, in ``unit`` times the prior's height and width.

    The order is top, bottom, left, right (FSAF, section 3.1).
    """

    unit: float = 4.0
    clip: bool = True

    def _units(self, priors: Tensor) -> Tensor:
        width, height = (priors[..., 2:] - priors[..., :2]).unbind(dim=-1)
        return torch.stack((height, height, width, width), dim=-1) * self.unit

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy priors and boxes to (N, 4) distances."""
        x, y = ((priors[:, :2] + priors[:, 2:]) / 2).unbind(dim=1)
        distances = torch.stack((y - boxes[:, 1], boxes[:, 3] - y, x - boxes[:, 0], boxes[:, 2] - x), dim=1)
        return distances / self._units(priors)

    def decode(self, priors: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(..., 4) xyxy priors and distances to (..., 4) xyxy boxes; ``size`` is the image's (h, w)."""
        x, y = ((priors[..., :2] + priors[..., 2:]) / 2).unbind(dim=-1)
        top, bottom, left, right = (codes * self._units(priors)).unbind(dim=-1)
        boxes = torch.stack((x - left, y - top, x + right, y + bottom), dim=-1)
        return boxes if size is None or not self.clip else clip_boxes(boxes, size)
