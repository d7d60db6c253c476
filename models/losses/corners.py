"""Losses on maps of corners and on what pairs them.

Shape letters: B images, K classes, H x W places of a map, N objects of all images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduce import weighted_sum


@dataclass(frozen=True)
class GaussianFocalLoss:
    """Focal loss (Law and Deng, "CornerNet", equation 1) of (B, K, H, W) logits, whose targets are one at objects and
    fall off around them, where mistakes count less."""

    alpha: float = 2.0
    gamma: float = 4.0
    weight: float = 1.0
    eps: float = 1e-12

    def __call__(self, logits: Tensor, targets: Tensor, normalizer: float | Tensor = 1.0) -> Tensor:
        """The sum over all places, divided by ``normalizer``."""
        probability = logits.sigmoid()
        positive = -(probability + self.eps).log() * (1 - probability) ** self.alpha
        negative = -(1 - probability + self.eps).log() * probability**self.alpha * (1 - targets) ** self.gamma
        return self.weight * weighted_sum(torch.where(targets == 1, positive, negative), None, normalizer)


@dataclass(frozen=True)
class AssociativeEmbeddingLoss:
    """Pulls the embeddings of an object's two corners together and pushes those of different objects apart (Law and
    Deng, "CornerNet", equations 4 and 5)."""

    pull_weight: float = 0.25
    push_weight: float = 0.25

    def __call__(self, first: Tensor, second: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Pull and push loss of (N,) embeddings of both corners and the (N,) image of each object: means over the
        objects, and pairs of objects, of each image, summed over images."""
        mean = (first + second) / 2
        together = image[:, None] == image
        count = together.sum(dim=1)
        pull = (((first - mean) ** 2 + (second - mean) ** 2) / count).sum()
        others = together & ~torch.eye(len(image), dtype=torch.bool, device=image.device)
        apart = F.relu(1 - (mean[:, None] - mean).abs()) * others
        push = (apart / (count * (count - 1)).clamp(min=1)[:, None]).sum()
        return self.pull_weight * pull, self.push_weight * push
