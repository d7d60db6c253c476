"""Normalization layers as a value: which kind, and how it is named in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Norm:
    """Builds a normalization layer for a channel count.

    kind: ``bn`` (batch) or ``gn`` (group normalization). trainable: whether scale and shift are learnt.
    momentum and eps: as of ``nn.BatchNorm2d``.
    """

    kind: str = "bn"
    groups: int = 32
    trainable: bool = True
    momentum: float = 0.1
    eps: float = 1e-5

    def __call__(self, channels: int) -> nn.Module:
        if self.kind == "bn":
            layer: nn.Module = nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum)
        elif self.kind == "gn":
            layer = nn.GroupNorm(self.groups, channels, eps=self.eps)
        else:
            raise ValueError(f"Norm.kind: expected 'bn' or 'gn', found {self.kind!r}")
        layer.requires_grad_(self.trainable)
        return layer


BN = Norm("bn")
GN = Norm("gn")
FROZEN_BN = Norm("bn", trainable=False)
