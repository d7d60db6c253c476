"""Darknet-53: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", section 2.4.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import BN, ConvModule
from .resnet import freeze_batch_norm, init_backbone

STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""Channels and residual blocks of each stage."""


def leaky_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> ConvModule:
    """A convolution of the given size with batch normalization and leaky ReLU."""
    return ConvModule(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        norm=BN,
        activation=nn.LeakyReLU(0.1, inplace=True),
    )


class Residual(nn.Module):
    """A 1 x 1 and a 3 x 3 convolution and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = leaky_conv(channels, channels // 2, 1)
        self.conv2 = leaky_conv(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


def stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    """A convolution of stride 2 and residual blocks."""
    layers = nn.Sequential()
    layers.add_module("conv", leaky_conv(in_channels, channels, 3, stride=2))
    for index in range(blocks):
        layers.add_module(f"res{index}", Residual(channels))
    return layers


class Darknet(nn.Module):
    """(B, 3, H, W) to the maps of the last three stages, stride 8, 16 and 32.

    Batch normalization uses its running statistics while training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = leaky_conv(3, 32, 3)
        channels = 32
        for index, (width, blocks) in enumerate(STAGES, start=1):
            self.add_module(f"conv_res_block{index}", stage(channels, width, blocks))
            channels = width
        self.out_channels = tuple(width for width, _ in STAGES[-3:])
        init_backbone(self)

    def train(self, mode: bool = True) -> Darknet:
        super().train(mode)
        if mode:
            freeze_batch_norm(self)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.conv1(x)
        outputs = []
        for index in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"conv_res_block{index}")(x)
            outputs.append(x)
        return tuple(outputs[-3:])
