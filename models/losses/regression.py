"""Losses on regression codes.

Shape letters: N elements, D numbers of each.
"""

from __future__ import annotations

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
