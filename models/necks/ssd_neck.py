"""The extra feature layers of SSD: Liu et al., "SSD: Single Shot MultiBox Detector", section 2.1.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.init import init_xavier

EPS = 1e-10


class L2Norm(nn.Module):
    """Scale every pixel's feature vector to a learnt length a channel (ParseNet, section 3.3)."""

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        # Unlike a square root of squares, its gradient is finite where all channels are zero.
        length = torch.linalg.vector_norm(x.float(), dim=1, keepdim=True) + EPS
        return (self.weight[:, None, None].float() * x.float() / length).to(x.dtype)


@dataclass(frozen=True)
class ExtraLayer:
    """One more level: output channels, and stride, padding and size of its last convolution."""

    channels: int
    stride: int
    padding: int
    kernel_size: int = 3


class SSDNeck(nn.Module):
    """The first map normalized, the second as it is, and ever smaller maps made from it."""

    def __init__(self, in_channels: Sequence[int], layers: Sequence[ExtraLayer]) -> None:
        super().__init__()
        self.l2_norm = L2Norm(in_channels[0])
        self.extra_layers = nn.ModuleList()
        channels = in_channels[-1]
        for layer in layers:
            half = layer.channels // 2
            self.extra_layers.append(
                nn.Sequential(
                    ConvModule(channels, half, 1, activation=nn.ReLU(inplace=True)),
                    ConvModule(
                        half,
                        layer.channels,
                        layer.kernel_size,
                        stride=layer.stride,
                        padding=layer.padding,
                        activation=nn.ReLU(inplace=True),
                    ),
                )
            )
            channels = layer.channels
        self.out_channels = (*in_channels, *(layer.channels for layer in layers))
        init_xavier(self)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs = [self.l2_norm(inputs[0]), *inputs[1:]]
        for layer in self.extra_layers:
            outputs.append(layer(outputs[-1]))
        return tuple(outputs)
