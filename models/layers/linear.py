"""Fully connected layers one after another."""

from __future__ import annotations

from torch import nn


def fc_layers(in_channels: int, channels: int, count: int) -> nn.ModuleList:
    """So many linear layers of ``channels`` outputs, the first from ``in_channels``; activations are the caller's."""
    return nn.ModuleList(nn.Linear(in_channels if index == 0 else channels, channels) for index in range(count))
