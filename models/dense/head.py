"""The contract of dense heads, and the arrangement of their outputs.

Shape letters: B images, L levels, H x W locations of a level, A anchors of a location, P priors of all levels,
C numbers of a prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..structures import Detections, ImageBatch, Targets


class DenseHead(nn.Module):
    """Predicts from every location of every pyramid level.

    ``forward(features)`` gives raw outputs: for each kind of output one list with a tensor a level.
    """

    num_classes: int

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        raise NotImplementedError

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        raise NotImplementedError

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: Any) -> list[Detections]:
        """Detections of each image by the settings ``test``."""
        raise NotImplementedError


def feature_sizes(maps: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(H, W) of each level."""
    return [(m.shape[-2], m.shape[-1]) for m in maps]


def by_prior(level: Tensor, channels: int) -> Tensor:
    """One level's output (B, A C, H, W) to (B, H W A, C), in the order of the priors."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, channels)


def all_by_prior(levels: Sequence[Tensor], channels: int) -> Tensor:
    """Every level's output (B, A C, H, W) to one (B, P, C)."""
    return torch.cat([by_prior(level, channels) for level in levels], dim=1)
