"""The loss of predicting a set: DETR and its descendants.

Shape letters: D predictions made one after another, B images, Q queries, C class logits.
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


@dataclass(frozen=True)
class SetLoss:
    """Losses of predicted sets, each query with the object that the matcher gives it (DETR, equation 2).

    class_loss: from (B Q, C) logits and (B Q,) labels in 0..K, where K is no object, to a scalar. Box losses are
    divided by the number of objects, averaged over processes; absolute differences are of the numbers that the
    matcher compares.
    """

    matcher: HungarianMatcher
    class_loss: Callable[[Tensor, Tensor], Tensor]
    num_classes: int
    box_loss: L1Loss = field(default_factory=lambda: L1Loss(weight=5.0))
    iou_loss: GIoULoss = field(default_factory=lambda: GIoULoss(weight=2.0))

    def __call__(
        self, logits: Tensor, boxes: Tensor, sizes: Tensor, targets: Sequence[Targets], prefixes: Sequence[str]
    ) -> dict[str, Tensor]:
        """Loss terms of D predictions, each matched on its own and named with its own prefix.

        logits: (D, B, Q, C). boxes: (D, B, Q, 4) xyxy in batch pixels. sizes: (B, 4) width, height, width, height of
        each image.
        """
        matched = self.matcher(logits, boxes, sizes, targets)
        losses = {}
        for depth, prefix in enumerate(prefixes):
            terms = self.one(logits[depth], boxes[depth], sizes, targets, matched[depth])
            losses.update({prefix + name: value for name, value in terms.items()})
        return losses

    def one(
        self, logits: Tensor, boxes: Tensor, sizes: Tensor, targets: Sequence[Targets], matched: Tensor
    ) -> dict[str, Tensor]:
        """Loss terms of one prediction: (B, Q, C) logits, (B, Q, 4) boxes, (B, Q) index of each query's object."""
        image, query = (matched != BACKGROUND).nonzero(as_tuple=True)
        counts = torch.tensor([0] + [len(target) for target in targets], device=matched.device)
        # Where each object stands among those of all images.
        objects = matched[image, query] + counts.cumsum(0)[image]
        labels = torch.full_like(matched, self.num_classes)
        labels[image, query] = torch.cat([target.labels for target in targets])[objects]
        wanted = torch.cat([target.boxes for target in targets])[objects]
        pred, size = boxes[image, query], sizes[image]
        count = mean_count(len(wanted), boxes.device)
        shape = self.matcher.shape
        return {
            "loss_cls": self.class_loss(logits.flatten(0, 1), labels.flatten()),
            "loss_bbox": self.box_loss(shape(pred / size), shape(wanted / size), None, count),
            "loss_iou": self.iou_loss(pred, wanted, None, count),
        }


def layer_prefixes(depth: int) -> list[str]:
    """Names for the losses of ``depth`` decoder layers: the last has none before it, the others, which only help
    training (DETR, section 3.2, "Auxiliary decoding losses"), have ``d0.`` and so on."""
    return [f"d{layer}." for layer in range(depth - 1)] + [""]


def focal_set_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss of (N, K) logits and (N,) labels in 0..K, K for no object, divided by the number of objects."""
    count = mean_count((labels < logits.shape[1]).sum(), logits.device)
    return FocalLoss(weight=2.0)(logits, labels, None, count)
