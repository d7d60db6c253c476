"""Losses on regression codes.

Shape letters: N elements, D numbers of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .reduce import weighted_sum


@dataclass(frozen=True)
class L1Loss:
    """Absolute difference of (N, D) codes."""

    weight: float = 1.0
    on_boxes = False

    def __call__(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The sum, times ``weight`` (N, D), divided by ``normalizer``."""
        return self.weight * weighted_sum((pred - target).abs(), weight, normalizer)


@dataclass(frozen=True)
class SmoothL1Loss:
    """Quadratic below ``beta``, linear above (Fast R-CNN, eq. 3), of (N, D) codes."""

    beta: float = 1.0
    weight: float = 1.0
    on_boxes = False

    def each(self, pred: Tensor, target: Tensor) -> Tensor:
        """(N, D) loss of every number."""
        diff = (pred - target).abs()
        return self.weight * torch.where(diff < self.beta, 0.5 * diff**2 / self.beta, diff - 0.5 * self.beta)

    def __call__(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The sum, times ``weight`` (N, D), divided by ``normalizer``."""
        return weighted_sum(self.each(pred, target), weight, normalizer)


@dataclass(frozen=True)
class BalancedL1Loss:
    """Like smooth L1, with a larger gradient at accurate examples (Pang et al., "Libra R-CNN", eq. 8 to 10), of (N, D)
    codes.

    alpha: how much more accurate examples count (less where larger). gamma: the gradient of inaccurate ones, from
    ``beta`` on.
    """

    alpha: float = 0.5
    gamma: float = 1.5
    beta: float = 1.0
    weight: float = 1.0
    on_boxes = False

    def __call__(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """The sum, times ``weight`` (N, D), divided by ``normalizer``."""
        diff = (pred - target).abs()
        b = math.exp(self.gamma / self.alpha) - 1
        near = self.alpha / b * (b * diff + 1) * (b * diff / self.beta + 1).log() - self.alpha * diff
        far = self.gamma * diff + self.gamma / b - self.alpha * self.beta
        return self.weight * weighted_sum(torch.where(diff < self.beta, near, far), weight, normalizer)
