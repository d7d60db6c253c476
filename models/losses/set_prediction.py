"""The loss of predicting a set: DETR and its descendants.

Shape letters: D decoder layers, B images, Q queries, C class logits, P queries with an object, N objects of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..assigners.base import BACKGROUND
from ..assigners.hungarian import HungarianMatcher
from ..distributed import mean_count
from ..structures import Targets
from .classification import FocalLoss
from .iou import GIoULoss
from .regression import L1Loss

ClassLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SetLoss:
    """Losses of one prediction of the set, given which query has which object (DETR, equation 2).

    class_loss: from (B Q, C) logits and (B Q,) labels in 0..K, where K is no object, to a scalar. shape: writes xyxy
    boxes as the numbers whose absolute differences count. Box losses are divided by the number of objects, averaged
    over processes.
    """

    class_loss: ClassLoss
    shape: Callable[[Tensor], Tensor]
    num_classes: int
    box_loss: L1Loss = field(default_factory=lambda: L1Loss(weight=5.0))
    iou_loss: GIoULoss = field(default_factory=lambda: GIoULoss(weight=2.0))

    def __call__(
        self, logits: Tensor, boxes: Tensor, sizes: Tensor, targets: Sequence[Targets], matched: Tensor
    ) -> dict[str, Tensor]:
        """Loss terms of (B, Q, C) logits and (B, Q, 4) xyxy boxes in batch pixels.

        sizes: (B, 4) width, height, width, height of each image. matched: (B, Q) index of each query's object.
        """
        positive = matched != BACKGROUND
        labels = torch.full_like(matched, self.num_classes)
        labels[positive] = torch.cat([t.labels[m[p]] for t, m, p in zip(targets, matched, positive)])
        losses = {"loss_cls": self.class_loss(logits.flatten(0, 1), labels.flatten())}
        wanted = torch.cat([t.boxes[m[p]] for t, m, p in zip(targets, matched, positive)])
        pred, size = boxes[positive], sizes[:, None].expand_as(boxes)[positive]
        count = mean_count(len(wanted), boxes.device)
        losses["loss_bbox"] = self.box_loss(self.shape(pred / size), self.shape(wanted / size), None, count)
        losses["loss_iou"] = self.iou_loss(pred, wanted, None, count)
        return losses


def focal_set_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss of (N, K) logits and (N,) labels in 0..K, K for no object, divided by the number of objects."""
    count = mean_count((labels < logits.shape[1]).sum(), logits.device)
    return FocalLoss(weight=2.0)(logits, labels, None, count)


def layer_losses(
    set_loss: SetLoss,
    matcher: HungarianMatcher,
    logits: Tensor,
    boxes: Tensor,
    sizes: Tensor,
    targets: Sequence[Targets],
) -> dict[str, Tensor]:
    """Losses of every decoder layer, matched on its own: the last under plain names, the others, which only help
    training (DETR, section 3.2, "Auxiliary decoding losses"), as ``d0.loss_cls`` and so on.

    logits: (D, B, Q, C). boxes: (D, B, Q, 4) xyxy in batch pixels. sizes: (B, 4) of ``SetLoss``.
    """
    matched = matcher(logits, boxes, sizes, targets)
    losses = {}
    for depth in range(len(logits)):
        prefix = "" if depth == len(logits) - 1 else f"d{depth}."
        terms = set_loss(logits[depth], boxes[depth], sizes, targets, matched[depth])
        losses.update({prefix + name: value for name, value in terms.items()})
    return losses
