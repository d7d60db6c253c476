"""PAFPN: Liu et al., "Path Aggregation Network for Instance Segmentation", section 3.1.

Shape letters: B images, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.init import init_xavier
from .fpn import FPN


class PAFPN(FPN):
    """A feature pyramid with a second, bottom-up path; levels beyond the backbone are subsampled."""

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256, *, num_outs: int = 5) -> None:
        super().__init__(in_channels, out_channels, num_outs=num_outs)
        steps = len(in_channels) - 1
        self.downsample_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, stride=2, padding=1) for _ in range(steps)
        )
        self.pafpn_convs = nn.ModuleList(ConvModule(out_channels, out_channels, 3, padding=1) for _ in range(steps))
        init_xavier(self.downsample_convs)
        init_xavier(self.pafpn_convs)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        inner = list(super().forward(inputs)[: len(inputs)])
        outs = [inner[0]]
        for index, (down, conv) in enumerate(zip(self.downsample_convs, self.pafpn_convs, strict=True)):
            inner[index + 1] = inner[index + 1] + down(inner[index])
            outs.append(conv(inner[index + 1]))
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
