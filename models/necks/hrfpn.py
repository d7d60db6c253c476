"""HRFPN: the pyramid of HRNetV2p (Sun et al., "Deep High-Resolution Representation Learning for Visual
Recognition", section 4.2).

Shape letters: B images, H x W pixels of the finest map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.init import init_xavier


class HRFPN(nn.Module):
    """All maps upsampled to the finest and joined, then pooled down again to ``num_outs`` levels.

    stride: of the last convolutions, 2 where the pyramid is to start one level lower.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 256, *, num_outs: int = 5, stride: int = 1
    ) -> None:
        super().__init__()
        self.reduction_conv = ConvModule(sum(in_channels), out_channels, 1)
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, stride=stride) for _ in range(num_outs)
        )
        self.out_channels = (out_channels,) * num_outs
        init_xavier(self)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        joined = [inputs[0]]
        for index, x in enumerate(inputs[1:], start=1):
            joined.append(F.interpolate(x, scale_factor=2**index, mode="bilinear", align_corners=False))
        finest = self.reduction_conv(torch.cat(joined, dim=1))
        levels = [finest] + [F.avg_pool2d(finest, 2**index, stride=2**index) for index in range(1, len(self.fpn_convs))]
        return tuple(conv(x) for conv, x in zip(self.fpn_convs, levels, strict=True))
