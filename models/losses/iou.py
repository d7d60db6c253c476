"""Losses on the overlap of boxes.

Shape letters: N boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss

from ...ops.overlaps import elementwise_iou
from ..boxes import box_centres, box_sizes
from .reduce import weighted_sum


class BoxLoss(Protocol):
    """A loss between predicted and wanted boxes or codes."""

    @property
    def on_boxes(self) -> bool:
        """Whether it compares decoded xyxy boxes rather than codes."""
        ...

    def __call__(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor: ...


def per_box(weight: Tensor | None) -> Tensor | None:
    """(N, 4) or (N,) weights to (N,), one for each box."""
    return weight.mean(dim=1) if weight is not None and weight.ndim == 2 else weight


class OverlapLoss:
    """Sums what ``each`` says of every box."""

    on_boxes = True

    def each(self, pred: Tensor, target: Tensor) -> Tensor:
        """(N,) loss of every one of the (N, 4) xyxy boxes."""
        raise NotImplementedError

    def __call__(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The sum, times ``weight`` (N,) or the mean of (N, 4), divided by ``normalizer``."""
        return weighted_sum(self.each(pred, target), per_box(weight), normalizer)


@dataclass(frozen=True)
class IoULoss(OverlapLoss):
    """``1 - IoU``, or ``-log IoU`` (UnitBox, eq. 4), of (N, 4) xyxy boxes.

    shape: ``linear`` or ``log``. eps: the least IoU whose logarithm is taken.
    """

    shape: str = "log"
    eps: float = 1e-6
    weight: float = 1.0

    def each(self, pred: Tensor, target: Tensor) -> Tensor:
        overlap = elementwise_iou(pred, target).clamp(min=self.eps)
        return self.weight * (1 - overlap if self.shape == "linear" else -overlap.log())


@dataclass(frozen=True)
class GIoULoss(OverlapLoss):
    """``1 - GIoU`` (Rezatofighi et al., "Generalized Intersection over Union", eq. 3) of (N, 4) xyxy boxes."""

    eps: float = 1e-6
    weight: float = 1.0

    def each(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.weight * (1 - elementwise_iou(pred, target, kind="giou", eps=self.eps))


@dataclass(frozen=True)
class DIoULoss(OverlapLoss):
    """``1 - IoU`` plus the squared distance of the centres, relative to the diagonal of the box around both
    (Zheng et al., "Distance-IoU Loss", eq. 7), of (N, 4) xyxy boxes."""

    eps: float = 1e-6
    weight: float = 1.0

    def each(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.weight * distance_box_iou_loss(pred, target, eps=self.eps)


@dataclass(frozen=True)
class CIoULoss(OverlapLoss):
    """DIoU and a term for the ratio of the sides, whose weight takes no part in the gradient (Zheng et al.,
    "Distance-IoU Loss", eq. 10), of (N, 4) xyxy boxes."""

    eps: float = 1e-6
    weight: float = 1.0

    def each(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.weight * complete_box_iou_loss(pred, target, eps=self.eps)


@dataclass(frozen=True)
class BoundedIoULoss:
    """Smooth bounds of the IoU by each coordinate alone (Tychsen-Smith & Petersson, "Improving Object Localization
    with Fitness NMS and Bounded IoU Loss", section 4), of (N, 4) xyxy boxes."""

    beta: float = 0.2
    eps: float = 1e-3
    weight: float = 1.0
    on_boxes = True

    def __call__(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The sum over boxes and coordinates, times ``weight`` (N, 4), divided by ``normalizer``."""
        with torch.no_grad():
            centre, size = box_centres(target), box_sizes(target)
        shift = (centre - box_centres(pred)).abs()
        pred_size = box_sizes(pred)
        by_centre = 1 - ((size - 2 * shift) / (size + 2 * shift + self.eps)).clamp(min=0)
        by_size = 1 - torch.minimum(size / (pred_size + self.eps), pred_size / (size + self.eps))
        bound = torch.stack((by_centre, by_size), dim=-1).flatten(1)
        loss = torch.where(bound < self.beta, 0.5 * bound**2 / self.beta, bound - 0.5 * self.beta)
        return self.weight * weighted_sum(loss, weight, normalizer)
