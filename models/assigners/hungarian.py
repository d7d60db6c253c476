"""One-to-one assignment of predictions to objects.

Shape letters: D predictions made one after another (decoder layers, stages), B images, Q queries, C class logits,
K classes, N objects of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...ops.overlaps import pairwise_iou
from ..structures import Targets
from .base import BACKGROUND

UNUSABLE = 1e6
"""What stands in place of a cost that is not a number, so that the network's trouble shows in the loss, not here."""


def softmax_cost(logits: Tensor) -> Tensor:
    """(..., K + 1) logits, the last for no object, to the (..., K) cost of each class (DETR, equation 1)."""
    return -logits.softmax(dim=-1)[..., :-1]


@dataclass(frozen=True)
class FocalCost:
    """(..., K) logits to the (..., K) cost of each class: focal loss as that class less focal loss as background."""

    alpha: float = 0.25
    gamma: float = 2.0
    eps: float = 1e-12

    def __call__(self, logits: Tensor) -> Tensor:
        probability = logits.sigmoid()
        negative = -(1 - probability + self.eps).log() * (1 - self.alpha) * probability**self.gamma
        positive = -(probability + self.eps).log() * self.alpha * (1 - probability) ** self.gamma
        return positive - negative


focal_cost = FocalCost()


@dataclass(frozen=True)
class HungarianMatcher:
    """The assignment of least cost, each object to exactly one query (DETR, section 3.1).

    class_cost: from logits to the cost of each class. shape: writes xyxy boxes as the numbers whose absolute
    differences count. class_weight, box_weight, iou_weight: of the class cost, of these differences in shares of the
    image, and of the negative GIoU.
    """

    class_cost: Callable[[Tensor], Tensor]
    shape: Callable[[Tensor], Tensor]
    class_weight: float = 2.0
    box_weight: float = 5.0
    iou_weight: float = 2.0

    def costs(self, logits: Tensor, boxes: Tensor, size: Tensor, target: Targets) -> Tensor:
        """(D, Q, N) costs of one image from (D, Q, C) logits, (D, Q, 4) boxes in pixels and (4,) image size."""
        by_class = self.class_cost(logits)[..., target.labels]
        by_box = torch.cdist(self.shape(boxes / size), self.shape(target.boxes / size), p=1)
        overlap = pairwise_iou(torch.nan_to_num(boxes.flatten(0, 1)), target.boxes, kind="giou").reshape(by_box.shape)
        return self.class_weight * by_class + self.box_weight * by_box - self.iou_weight * overlap

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, sizes: Tensor, targets: Sequence[Targets]) -> Tensor:
        """(D, B, Q) int64 index of each query's object in its image, or ``BACKGROUND``.

        logits: (D, B, Q, C). boxes: (D, B, Q, 4) xyxy in batch pixels. sizes: (B, 4) width, height, width, height of
        each image. Costs are computed on the device; they reach the host in one copy, and the result goes back in one.
        """
        matched = torch.full(logits.shape[:3], BACKGROUND, dtype=torch.int64)
        counts = [len(target) for target in targets]
        if sum(counts) > 0:
            costs = [
                self.costs(logits[:, i], boxes[:, i], sizes[i], target) for i, target in enumerate(targets) if counts[i]
            ]
            table = torch.nan_to_num(torch.cat(costs, dim=-1), UNUSABLE, UNUSABLE, -UNUSABLE).cpu()
            start = 0
            for image, count in enumerate(counts):
                if count == 0:
                    continue
                for depth, cost in enumerate(table[..., start : start + count].numpy()):
                    queries, objects = linear_sum_assignment(cost)
                    matched[depth, image, torch.from_numpy(queries)] = torch.from_numpy(objects)
                start += count
        return matched.to(logits.device)
