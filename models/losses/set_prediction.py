"""The loss of predicting a set: DETR and its descendants.

Shape letters: D predictions made one after another, B images, Q queries, C class logits, P queries with an object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.overlaps import elementwise_iou
from ..assigners.base import BACKGROUND
from ..assigners.hungarian import HungarianMatcher
from ..distributed import mean_count
from ..structures import Targets
from .classification import FocalLoss, one_hot_targets
from .iou import GIoULoss


@dataclass(frozen=True)
class SetLoss:
    """Losses of predicted sets, each query with the object that the matcher gives it (DETR, equation 2).

    class_loss: from (B Q, C) logits, (B Q,) labels in 0..K, where K is no object, and (B Q,) IoU of each query's box
    with its object, 0 where it has none, to a scalar. Box losses are divided by the number of objects, averaged over
    processes; absolute differences are of the numbers that the matcher compares.
    """

    matcher: HungarianMatcher
    class_loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    num_classes: int
    box_weight: float = 5.0
    iou_loss: GIoULoss = field(default_factory=lambda: GIoULoss(weight=2.0))

    def __call__(
        self,
        logits: Tensor,
        boxes: Tensor,
        sizes: Tensor,
        targets: Sequence[Targets],
        prefixes: Sequence[str],
        known: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss terms of D predictions, each matched on its own and named with its own prefix.

        logits: (D, B, Q, C). boxes: (D, B, Q, 4) xyxy in batch pixels. sizes: (B, 4) width, height, width, height of
        each image. known: (B, Q) index of each query's object where nothing is to be matched.
        """
        if known is None:
            pairs = [matched_pairs(one, targets) for one in self.matcher(logits, boxes, sizes, targets)]
        else:
            pairs = [matched_pairs(known, targets)] * len(prefixes)
        losses = {}
        for depth, prefix in enumerate(prefixes):
            terms = {
                "loss_cls": self.class_term(logits[depth], boxes[depth], pairs[depth]),
                **self.box_terms(boxes[depth], sizes, pairs[depth]),
            }
            losses.update({prefix + name: value for name, value in terms.items()})
        return losses

    def class_term(self, logits: Tensor, boxes: Tensor, pairs: Pairs) -> Tensor:
        """The loss of one prediction's classes."""
        labels = pairs.where[0].new_full(logits.shape[:2], self.num_classes)
        labels[pairs.where] = pairs.labels
        quality = boxes.new_zeros(logits.shape[:2])
        quality[pairs.where] = elementwise_iou(boxes[pairs.where].detach(), pairs.boxes).to(quality.dtype)
        return self.class_loss(logits.flatten(0, 1), labels.flatten(), quality.flatten())

    def box_terms(self, boxes: Tensor, sizes: Tensor, pairs: Pairs) -> dict[str, Tensor]:
        """The losses of one prediction's boxes."""
        pred, wanted, size = boxes[pairs.where], pairs.boxes, sizes[pairs.where[0]]
        count = mean_count(len(wanted), boxes.device)
        shape = self.matcher.shape
        return {
            "loss_bbox": self.box_weight * (shape(pred / size) - shape(wanted / size)).abs().sum() / count,
            "loss_iou": self.iou_loss.each(pred, wanted).sum() / count,
        }


class Pairs(NamedTuple):
    """Queries that have an object: ``where`` they are, image and query, and its labels (P,) and boxes (P, 4)."""

    where: tuple[Tensor, Tensor]
    labels: Tensor
    boxes: Tensor


def matched_pairs(matched: Tensor, targets: Sequence[Targets]) -> Pairs:
    """The pairs of (B, Q) indices of each query's object in its image."""
    image, query = (matched != BACKGROUND).nonzero(as_tuple=True)
    counts = torch.tensor([0] + [len(target) for target in targets], device=matched.device)
    # Where each object stands among those of all images.
    objects = matched[image, query] + counts.cumsum(0)[image]
    labels = torch.cat([target.labels for target in targets])[objects]
    return Pairs((image, query), labels, torch.cat([target.boxes for target in targets])[objects])


def layer_prefixes(depth: int) -> list[str]:
    """Names for the losses of ``depth`` decoder layers: the last has none before it, the others, which only help
    training (DETR, section 3.2, "Auxiliary decoding losses"), have ``d0.`` and so on."""
    return [f"d{layer}." for layer in range(depth - 1)] + [""]


@dataclass(frozen=True)
class FocalSetLoss:
    """Focal loss of (N, K) logits and (N,) labels in 0..K, K for no object, divided by the number of objects."""

    loss: FocalLoss = field(default_factory=lambda: FocalLoss(weight=2.0))

    def __call__(self, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
        count = mean_count((labels < logits.shape[1]).sum(), logits.device)
        return self.loss(logits, labels, None, count)


focal_set_loss = FocalSetLoss()


def varifocal_set_loss(
    logits: Tensor, labels: Tensor, quality: Tensor, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """Cross-entropy of (N, K) logits with the box's IoU at an object's class (RT-DETR, section 4.3), where it weighs
    as much as the IoU; elsewhere ``alpha * score ** gamma``. Divided by the number of objects."""
    count = mean_count((labels < logits.shape[1]).sum(), logits.device)
    one_hot = one_hot_targets(labels, logits.shape[1], logits.dtype)
    wanted = quality[:, None].to(logits.dtype) * one_hot
    weight = alpha * logits.detach().sigmoid() ** gamma * (1 - one_hot) + wanted
    return F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="sum") / count
