"""GHM: Li et al., "Gradient Harmonized Single-stage Detector".

RetinaNet whose losses weigh each example by the inverse density of examples with a gradient of like length, so that
neither the many easy ones nor the outliers rule the training. As in the published training, densities are those of
one pyramid level at a time.

Shape letters: B images, P anchors, K classes, N examples, n bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..dense.anchor_targets import anchor_losses
from ..dense.head import by_prior, feature_sizes
from ..detectors.single_stage import SingleStageDetector
from ..losses import BoxLoss
from ..losses.classification import one_hot_targets
from ..structures import ImageBatch, Targets
from .retinanet import RetinaHead, retinanet


class GradientDensity(nn.Module):
    """How many examples have a gradient of like length: a running histogram with ``bins`` bins over 0..1 (section 3.2).

    ``acc_sum`` (n,) holds the exponential moving averages of the counts (section 3.4).
    """

    def __init__(self, *, bins: int, momentum: float, last_edge: float) -> None:
        super().__init__()
        self.bins, self.momentum = bins, momentum
        self.edges: Tensor
        self.acc_sum: Tensor
        edges = torch.arange(bins + 1).float() / bins
        edges[-1] = last_edge
        self.register_buffer("edges", edges)
        self.register_buffer("acc_sum", torch.zeros(bins))

    def harmonized(self, lengths: Tensor, valid: Tensor) -> Tensor:
        """The weight of each example by its gradient's length, zero where it is not ``valid``; (...) to (...).

        The counts of these examples enter the moving averages first. Weights are such that those of all examples
        sum to their number, where the averages are the counts.
        """
        index = torch.bucketize(lengths, self.edges, right=True).sub(1).clamp(0, self.bins - 1)
        counts = torch.bincount(index[valid], minlength=self.bins).float()
        found = counts > 0
        self.acc_sum[found] = self.momentum * self.acc_sum[found] + (1 - self.momentum) * counts[found]
        total = counts.sum().clamp(min=1)
        weights = torch.where(found, total / self.acc_sum, 0) / found.sum().clamp(min=1)
        return torch.where(valid, weights[index], 0)


class GHMC(GradientDensity):
    """GHM-C loss (eq. 9) on sigmoid scores: (N, K) logits and (N,) labels in 0..K, where K is background."""

    def __init__(self, *, bins: int = 30, momentum: float = 0.75, loss_weight: float = 1.0) -> None:
        super().__init__(bins=bins, momentum=momentum, last_edge=1 + 1e-6)
        self.loss_weight = loss_weight

    def forward(
        self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The mean over valid elements, which are those of nonzero ``weight`` (N,); the normalizer plays no part."""
        target = one_hot_targets(labels, logits.shape[1], logits.dtype)
        valid = torch.ones_like(target, dtype=torch.bool) if weight is None else (weight > 0)[:, None].expand_as(target)
        weights = self.harmonized((logits.detach().sigmoid() - target).abs(), valid)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return self.loss_weight * (loss * weights).sum() / valid.sum().clamp(min=1)


class GHMR(GradientDensity):
    """GHM-R loss (eqs. 10 and 13): a smooth L1 loss of (N, 4) codes, whose gradient's length lies below 1.

    mu: where the loss turns from quadratic to linear.
    """

    on_boxes = False

    def __init__(self, *, mu: float = 0.02, bins: int = 10, momentum: float = 0.7, loss_weight: float = 10.0) -> None:
        super().__init__(bins=bins, momentum=momentum, last_edge=1e3)
        self.mu, self.loss_weight = mu, loss_weight

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The mean over valid numbers, which are those of nonzero ``weight`` (N, 4); the normalizer plays no part."""
        diff = pred - target
        root = (diff**2 + self.mu**2).sqrt()
        valid = torch.ones_like(diff, dtype=torch.bool) if weight is None else weight > 0
        weights = self.harmonized((diff / root).detach().abs(), valid)
        return self.loss_weight * ((root - self.mu) * weights).sum() / valid.sum().clamp(min=1)


class GHMHead(RetinaHead):
    """A RetinaNet head trained with GHM-C and GHM-R; outputs and further ``parts`` as of ``RetinaHead``."""

    def __init__(
        self,
        *,
        num_classes: int,
        class_loss: Callable[..., Tensor] | None = None,
        box_loss: BoxLoss | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, class_loss=class_loss or GHMC(), box_loss=box_loss or GHMR(), **parts)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes = (
            [by_prior(level, channels) for level in kind]
            for kind, channels in zip(outputs, (self.num_classes, 4), strict=True)
        )
        anchors, wanted = self.anchor_targets(feature_sizes(outputs[0]), images, targets)
        losses, start = [], 0
        for level_logits, level_codes in zip(logits, codes, strict=True):
            here = slice(start, start + level_logits.shape[1])
            level_wanted = replace(
                wanted,
                labels=wanted.labels[:, here],
                label_weights=wanted.label_weights[:, here],
                codes=wanted.codes[:, here],
                positive=wanted.positive[:, here],
            )
            losses.append(
                anchor_losses(
                    level_logits,
                    level_codes,
                    anchors[here],
                    level_wanted,
                    class_loss=self.loss_cls,
                    box_loss=self.loss_bbox,
                    coder=self.coder,
                    normalizer=wanted.positives,
                )
            )
            start = here.stop
        loss_cls, loss_bbox = (torch.stack(terms).sum() for terms in zip(*losses, strict=True))
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox}


def ghm_retinanet(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """RetinaNet with GHM losses on a backbone with four stages."""
    return retinanet(num_classes, backbone=backbone, head=GHMHead)
