"""FPN whose top-down path upsamples by CARAFE: Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures".

Shape letters: B images, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers.carafe import CARAFE
from ..layers.conv import ConvModule
from ..layers.init import init_xavier


class FPNCarafe(nn.Module):
    """A five-level pyramid from four backbone maps; the fifth level takes part in the top-down path."""

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(c, out_channels, 1) for c in in_channels)
        self.lateral_convs.append(ConvModule(in_channels[-1], out_channels, 3, stride=2, padding=1))
        levels = len(self.lateral_convs)
        self.fpn_convs = nn.ModuleList(ConvModule(out_channels, out_channels, 3, padding=1) for _ in range(levels))
        init_xavier(self)
        self.upsample_modules = nn.ModuleList(CARAFE(out_channels) for _ in range(levels - 1))
        self.out_channels = (out_channels,) * levels

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, (*inputs, inputs[-1]), strict=True)]
        for index in range(len(laterals) - 1, 0, -1):
            height, width = laterals[index - 1].shape[2:]
            larger = self.upsample_modules[index - 1](laterals[index])
            laterals[index - 1] = laterals[index - 1] + larger[:, :, :height, :width]
        return tuple(conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=True))
