"""Losses on class scores.

Shape letters: N elements, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.focal_loss import sigmoid_focal_loss
from .reduce import weighted_sum


def one_hot_targets(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """(N,) labels in 0..K, where K is background, to (N, K) rows of zeros with a one at the label."""
    return F.one_hot(labels, num_classes + 1)[:, :num_classes].to(dtype)


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy of (N, K) logits and (N,) labels."""

    weight: float = 1.0

    def __call__(
        self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The sum, times ``weight`` (N,), divided by ``normalizer``."""
        loss = F.cross_entropy(logits, labels, reduction="none")
        return self.weight * weighted_sum(loss, weight, normalizer)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Sigmoid cross-entropy of (N, K) logits and (N,) labels in 0..K, where K is background."""

    weight: float = 1.0

    def __call__(
        self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The sum over elements and classes, times ``weight`` (N,), divided by ``normalizer``."""
        targets = one_hot_targets(labels, logits.shape[1], logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return self.weight * weighted_sum(loss, None if weight is None else weight[:, None], normalizer)


def soft_binary_cross_entropy(
    logits: Tensor, targets: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
) -> Tensor:
    """Sigmoid cross-entropy of logits and targets in 0..1 of any one shape: the sum, times ``weight`` of that shape,
    divided by ``normalizer``."""
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return weighted_sum(loss, weight, normalizer)


@dataclass(frozen=True)
class FocalLoss:
    """Focal loss (Lin et al., "Focal Loss for Dense Object Detection", eq. 5) on sigmoid scores.

    (N, K) logits and (N,) labels in 0..K, where K is background.
    """

    gamma: float = 2.0
    alpha: float = 0.25
    weight: float = 1.0

    def each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, K) loss of every element and class."""
        return self.weight * sigmoid_focal_loss(logits, labels, self.gamma, self.alpha)

    def __call__(
        self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The sum over elements and classes, times ``weight`` (N,), divided by ``normalizer``."""
        return weighted_sum(self.each(logits, labels), None if weight is None else weight[:, None], normalizer)
