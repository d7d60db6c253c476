"""The dilated encoder of YOLOF: Chen et al., "You Only Look One-level Feature", section 4.1.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers import BN, ConvModule
from ..layers.init import init_normal, init_xavier

DILATIONS = (2, 4, 6, 8)


class DilatedBottleneck(nn.Module):
    """1 x 1, dilated 3 x 3 and 1 x 1 convolutions and a shortcut."""

    def __init__(self, channels: int, middle: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, middle, 1, norm=BN, activation=nn.ReLU(inplace=True))
        self.conv2 = ConvModule(
            middle, middle, 3, padding=dilation, dilation=dilation, norm=BN, activation=nn.ReLU(inplace=True)
        )
        self.conv3 = ConvModule(middle, channels, 1, norm=BN, activation=nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(self.conv2(self.conv1(x)))


class DilatedEncoder(nn.Module):
    """The last backbone map projected, then seen through growing receptive fields: one map of ``out_channels``."""

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 512,
        *,
        middle: int = 128,
        dilations: Sequence[int] = DILATIONS,
    ) -> None:
        super().__init__()
        self.lateral_conv = nn.Conv2d(in_channels[-1], out_channels, 1)
        self.lateral_norm = BN(out_channels)
        self.fpn_conv = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.fpn_norm = BN(out_channels)
        self.dilated_encoder_blocks = nn.Sequential(
            *(DilatedBottleneck(out_channels, middle, dilation) for dilation in dilations)
        )
        self.out_channels = (out_channels,)
        init_normal(self.dilated_encoder_blocks)
        init_xavier(self.lateral_conv)
        init_xavier(self.fpn_conv)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        x = self.fpn_norm(self.fpn_conv(self.lateral_norm(self.lateral_conv(inputs[-1]))))
        return (self.dilated_encoder_blocks(x),)
