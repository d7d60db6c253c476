"""The searched pyramid of NAS-FCOS: Wang et al., "NAS-FCOS: Fast Neural Architecture Search for Object Detection".

Shape letters: B images, C channels, H x W pixels of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import BN, ConvModule, ModulatedDeformConv2d

# Name, and whether the second input is convolved too. A name's digits are its inputs: maps 0 to 2 come from the
# backbone, each cell adds the next number (section 4.1, figure 4).
CELLS = (
    ("c22_1", True),
    ("c22_2", True),
    ("c32", False),
    ("c02", False),
    ("c42", True),
    ("c36", True),
    ("c61", True),
)
OUTPUTS = (9, 8, 7)
SHARED = 5
"""The map that is added to every output."""


def deformed(channels: int) -> ConvModule:
    """A modulated deformable convolution of two offset groups, normalized, with ReLU."""
    conv = partial(ModulatedDeformConv2d, offset_groups=2)
    return ConvModule(channels, channels, 3, padding=1, bias=True, norm=BN, activation=nn.ReLU(), conv=conv)


class OutConv(nn.Module):
    """Normalization and ReLU of two maps side by side, then one grouped convolution of both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = BN(2 * channels)
        self.conv = nn.Conv2d(2 * channels, channels, 1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x).relu())


class Cell(nn.Module):
    """Two maps, convolved, brought to the larger size and joined."""

    def __init__(self, channels: int, second: bool) -> None:
        super().__init__()
        self.out_conv = OutConv(channels)
        self.input1_conv = deformed(channels)
        self.input2_conv = deformed(channels) if second else nn.Identity()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        size = max(first.shape[2:], second.shape[2:])
        first, second = self.input1_conv(first), self.input2_conv(second)
        joined = [x if x.shape[2:] == size else F.interpolate(x, size=size, mode="nearest") for x in (first, second)]
        return self.out_conv(torch.cat(joined, dim=1))


class ReluConv(nn.Module):
    """A convolution of stride 2, behind a ReLU where wanted."""

    def __init__(self, channels: int, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        nn.init.kaiming_uniform_(self.conv.weight, a=1)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.relu() if self.activation else x)


class NASFCOSFPN(nn.Module):
    """Five levels of strides 8 to 128 from the backbone's last three maps."""

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(
            ConvModule(c, out_channels, 1, norm=BN, activation=nn.ReLU()) for c in in_channels[-3:]
        )
        self.fpn = nn.ModuleDict({name: Cell(out_channels, second) for name, second in CELLS})
        self.extra_downsamples = nn.ModuleList(ReluConv(out_channels, index > 0) for index in range(2))
        self.out_channels = (out_channels,) * 5

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        used = inputs[-3:]
        maps = [conv(x) for conv, x in zip(self.adapt_convs, used, strict=True)]
        for name, _ in CELLS:
            maps.append(self.fpn[name](maps[int(name[1])], maps[int(name[2])]))
        outputs = []
        for index, x in zip(OUTPUTS, used, strict=True):
            total = maps[index] + bilinear(maps[SHARED], maps[index].shape[2:])
            outputs.append(bilinear(total, x.shape[2:]))
        for downsample in self.extra_downsamples:
            outputs.append(downsample(outputs[-1]))
        return tuple(outputs)


def bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) resampled to (B, C, *size)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
