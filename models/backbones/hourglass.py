"""Stacked hourglasses (Newell et al., "Stacked Hourglass Networks for Human Pose Estimation"), as CornerNet builds them
(Law and Deng, "CornerNet", section 3.5).

Shape letters: B images, C channels, H x W pixels. Part names are the published checkpoint keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.norm import BN, Norm
from .resnet import BasicBlock, BlockOptions, shortcut


def residual(in_channels: int, out_channels: int, stride: int, norm: Norm) -> BasicBlock:
    """A residual block that changes channels and resolution where asked for."""
    options = BlockOptions(norm=norm)
    return BasicBlock(
        in_channels,
        out_channels,
        stride=stride,
        dilation=1,
        downsample=shortcut(in_channels, out_channels, stride, options),
        options=options,
    )


def residuals(in_channels: int, out_channels: int, blocks: int, norm: Norm, stride: int = 1) -> nn.Sequential:
    """A row of blocks, of which the first changes channels and resolution."""
    layers = [residual(in_channels, out_channels, stride, norm)]
    layers += [residual(out_channels, out_channels, 1, norm) for _ in range(1, blocks)]
    return nn.Sequential(*layers)


class Hourglass(nn.Module):
    """Down by strides and up again, with a path beside at every resolution: (B, C, H, W) to the same shape.

    channels and blocks: of this resolution first, then of each lower one.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int], norm: Norm) -> None:
        super().__init__()
        own, lower = channels[:2]
        self.up1 = residuals(own, own, blocks[0], norm)
        self.low1 = residuals(own, lower, blocks[0], norm, stride=2)
        if len(channels) > 2:
            self.low2: nn.Module = Hourglass(channels[1:], blocks[1:], norm)
        else:
            self.low2 = residuals(lower, lower, blocks[1], norm)
        # On the way up the last block changes the channels.
        self.low3 = nn.Sequential(
            *[residual(lower, lower, 1, norm) for _ in range(1, blocks[0])], residual(lower, own, 1, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        beside = self.up1(x)
        below = self.low3(self.low2(self.low1(x)))
        return beside + F.interpolate(below, size=beside.shape[2:], mode="nearest")


class HourglassNet(nn.Module):
    """A stem of stride 4 and ``stacks`` hourglasses: (B, 3, H, W) to one (B, out, H / 4, W / 4) map of each.

    channels and blocks: of each resolution inside an hourglass, from stride 4 down.
    """

    def __init__(
        self,
        *,
        stacks: int = 2,
        channels: Sequence[int] = (256, 256, 384, 384, 384, 512),
        blocks: Sequence[int] = (2, 2, 2, 2, 2, 4),
        out_channels: int = 256,
        norm: Norm = BN,
    ) -> None:
        super().__init__()
        if len(channels) != len(blocks):
            raise ValueError(
                f"HourglassNet: expected as many blocks as channels ({len(channels)}), found {len(blocks)}"
            )
        width = channels[0]
        relu = nn.ReLU(inplace=True)
        self.stem = nn.Sequential(
            ConvModule(3, width // 2, 7, stride=2, padding=3, norm=norm, activation=relu),
            residuals(width // 2, width, 1, norm, stride=2),
        )
        self.hourglass_modules = nn.ModuleList(Hourglass(channels, blocks, norm) for _ in range(stacks))
        self.out_convs = nn.ModuleList(
            ConvModule(width, out_channels, 3, padding=1, norm=norm, activation=relu) for _ in range(stacks)
        )
        # Between two hourglasses: what went into the first and what came out of it, added.
        self.conv1x1s = nn.ModuleList(ConvModule(width, width, 1, norm=norm) for _ in range(stacks - 1))
        self.remap_convs = nn.ModuleList(ConvModule(out_channels, width, 1, norm=norm) for _ in range(stacks - 1))
        self.inters = nn.ModuleList(residual(width, width, 1, norm) for _ in range(stacks - 1))
        self.out_channels = (out_channels,) * stacks

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        outputs = []
        for index, (hourglass, out_conv) in enumerate(zip(self.hourglass_modules, self.out_convs)):
            out = out_conv(hourglass(x))
            outputs.append(out)
            if index < len(self.inters):
                x = self.inters[index](F.relu(self.conv1x1s[index](x) + self.remap_convs[index](out)))
        return tuple(outputs)
