"""FreeAnchor: Zhang et al., "FreeAnchor: Learning to Match Anchors for Visual Object Detection".

RetinaNet without fixed matches: each object has a bag of anchors, and the loss is the likelihood that some anchor of
the bag classifies and locates the object well, and that every other anchor is background.

Shape letters: B images, P anchors, K classes, N objects of an image, A anchors of a bag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...ops.overlaps import pairwise_iou
from ..backbones.resnet import ResNet
from ..coders import BoxCoder, DeltaCoder
from ..dense.head import all_by_prior, feature_sizes
from ..detectors.single_stage import SingleStageDetector
from ..losses import SmoothL1Loss
from ..structures import ImageBatch, Targets
from .retinanet import RetinaHead, retinanet


def negative_log(probability: Tensor) -> Tensor:
    """``-log p``, at most 100; without a gradient there."""
    return -probability.clamp(min=math.exp(-100)).log()


def mean_max(probability: Tensor) -> Tensor:
    """(N, A) to (N,): near the mean where all are small, near the largest where one is near 1 (eq. 7)."""
    weight = 1 / (1 - probability).clamp(min=1e-12)
    return (weight / weight.sum(dim=1, keepdim=True) * probability).sum(dim=1)


class FreeAnchorHead(RetinaHead):
    """A RetinaNet head trained with bags of anchors; outputs as of ``RetinaHead``.

    bag_size: A, the anchors that overlap an object most. overlap: the IoU from which on a predicted box begins to
    count as on an object. alpha and gamma: as of the focal loss. layers: further arguments of ``RetinaHead``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        coder: BoxCoder | None = None,
        code_loss: SmoothL1Loss | None = None,
        bag_size: int = 50,
        overlap: float = 0.6,
        alpha: float = 0.5,
        gamma: float = 2.0,
        **layers: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, coder=coder or DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)), **layers)
        self.code_loss = code_loss or SmoothL1Loss(beta=0.11, weight=0.75)
        self.bag_size, self.overlap, self.alpha, self.gamma = bag_size, overlap, alpha, gamma

    def bag_losses(self, scores: Tensor, codes: Tensor, anchors: Tensor, target: Targets) -> Tensor:
        """(N,) negative log-likelihood of each object's bag, from (P, K) scores, (P, 4) codes and anchors."""
        size = min(self.bag_size, len(anchors))
        bag = pairwise_iou(target.boxes, anchors).topk(size, dim=1, sorted=False).indices
        wanted = self.coder.encode(anchors[bag].flatten(0, 1), target.boxes.repeat_interleave(size, dim=0))
        distance = self.code_loss.each(codes[bag].flatten(0, 1), wanted).sum(dim=1).view(-1, size)
        matched = scores[bag, target.labels[:, None]] * (-distance).exp()
        return negative_log(mean_max(matched))

    @torch.no_grad()
    def on_object(self, codes: Tensor, anchors: Tensor, target: Targets) -> Tensor:
        """(P, K) the probability that each predicted box lies on an object of each class (eq. 10)."""
        found = codes.new_zeros(self.num_classes, len(anchors))
        if len(target) == 0:
            return found.T
        overlaps = pairwise_iou(target.boxes, self.coder.decode(anchors, codes))
        best = overlaps.amax(dim=1, keepdim=True).clamp(min=self.overlap + 1e-12)
        probability = ((overlaps - self.overlap) / (best - self.overlap)).clamp(0, 1)
        label = target.labels[:, None].expand_as(probability)
        return found.scatter_reduce(0, label, probability, "amax").T

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes = outputs
        anchors = torch.cat(self.anchors(feature_sizes(logits), logits[0].device))
        scores, deltas = all_by_prior(logits, self.num_classes).sigmoid(), all_by_prior(codes, 4)
        each = list(zip(scores, deltas, targets, strict=True))
        positive = torch.cat([self.bag_losses(score, delta, anchors, target) for score, delta, target in each])
        taken = torch.stack([self.on_object(delta, anchors, target) for _, delta, target in each])
        false = scores * (1 - taken)
        negative = false**self.gamma * negative_log(1 - false)
        return {
            "positive_bag_loss": self.alpha * positive.sum() / max(1, len(positive)),
            "negative_bag_loss": (1 - self.alpha) * negative.sum() / max(1, len(positive) * self.bag_size),
        }


def free_anchor_retinanet(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """RetinaNet with FreeAnchor on a backbone with four stages."""
    return retinanet(num_classes, backbone=backbone, head=FreeAnchorHead)
