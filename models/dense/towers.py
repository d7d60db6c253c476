"""Stacks of convolutions that the levels of a pyramid share.

Shape letters: B images, C channels, H x W locations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..layers import GN, ConvModule, Norm


def tower(
    in_channels: int,
    channels: int,
    depth: int,
    norm: Norm | None = None,
    *,
    bias: bool | None = None,
    last_conv: Callable[..., nn.Module] = nn.Conv2d,
) -> nn.Sequential:
    """``depth`` 3 x 3 convolutions with ReLU: (B, C, H, W) to (B, C', H, W).

    bias: of the convolutions; only where no ``norm`` follows, unless given. last_conv: builds the last convolution.
    """
    return nn.Sequential(
        *(
            ConvModule(
                in_channels if index == 0 else channels,
                channels,
                3,
                padding=1,
                bias=bias,
                norm=norm,
                activation=nn.ReLU(inplace=True),
                conv=last_conv if index == depth - 1 else nn.Conv2d,
            )
            for index in range(depth)
        )
    )


@dataclass(frozen=True)
class Tower:
    """Builds one of a head's towers; fields as of ``tower``."""

    in_channels: int = 256
    channels: int = 256
    depth: int = 4
    norm: Norm | None = GN
    bias: bool | None = None
    last_conv: Callable[..., nn.Module] = nn.Conv2d

    def __call__(self) -> nn.Sequential:
        return tower(self.in_channels, self.channels, self.depth, self.norm, bias=self.bias, last_conv=self.last_conv)
