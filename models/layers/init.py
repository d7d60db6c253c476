"""Initial values of layers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from .deform import DeformConv2d

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def weighted_layers(root: nn.Module) -> Iterator[nn.Conv2d | nn.ConvTranspose2d | nn.Linear]:
    """Every convolution and linear layer under ``root``, but for the offset branches of deformable convolutions,
    which start at zero."""
    offsets = {id(layer.conv_offset) for layer in root.modules() if isinstance(layer, DeformConv2d)}
    for layer in root.modules():
        if isinstance(layer, CONVOLUTIONS) and id(layer) not in offsets:
            yield layer


def bias_for_prior(probability: float) -> float:
    """The bias at which a sigmoid gives ``probability`` (RetinaNet, section 4.1)."""
    return -math.log((1 - probability) / probability)


def zero_bias(layer: nn.Module) -> None:
    """Set the layer's bias, if it has one, to zero."""
    bias = getattr(layer, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)


def init_normal(root: nn.Module, std: float = 0.01) -> None:
    """Normal weights and zero biases in every convolution and linear layer under ``root``."""
    for layer in weighted_layers(root):
        nn.init.normal_(layer.weight, std=std)
        zero_bias(layer)


def init_xavier(root: nn.Module) -> None:
    """Xavier uniform weights and zero biases in every convolution and linear layer under ``root``."""
    for layer in weighted_layers(root):
        nn.init.xavier_uniform_(layer.weight)
        zero_bias(layer)


def init_kaiming(root: nn.Module) -> None:
    """Kaiming normal weights (fan out, ReLU) and zero biases in every convolution under ``root``."""
    for layer in weighted_layers(root):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        zero_bias(layer)
