"""What is read from queries, and from their boxes: classes, boxes, positions.

Shape letters: C channels, K classes.
"""

from __future__ import annotations

from torch import nn

from ..layers.init import bias_for_prior


def class_branch(channels: int, num_classes: int) -> nn.Linear:
    """(..., C) to (..., K) logits, at first the same small probability for all."""
    layer = nn.Linear(channels, num_classes)
    nn.init.constant_(layer.bias, bias_for_prior(0.01))
    return layer


def box_branch(channels: int, from_boxes: bool, outputs: int = 4) -> nn.Sequential:
    """(..., C) to (..., 4) codes, or so many ``outputs``.

    At first the reference itself, at small size where it has none.
    """
    last = nn.Linear(channels, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    if not from_boxes:
        nn.init.constant_(last.bias[2:], -2.0)
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU(), last)


def position_branch(channels: int) -> nn.Sequential:
    """(..., 4) boxes to the (..., C) positions of their queries."""
    layers = nn.Sequential(nn.Linear(4, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels))
    init_linear(layers)
    return layers


def init_linear(layers: nn.Sequential) -> None:
    """Xavier uniform weights in every linear layer."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
