"""Res2Net: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture".

A bottleneck whose 3 x 3 convolution is split into a chain over groups of channels, on a ResNet-D frame.

Shape letters: B images, C channels, H x W pixels, s scales.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .resnet import CHANNELS, BlockOptions, ResNet


class Bottle2neck(nn.Module):
    """Bottleneck with ``scales`` groups of channels, each convolved after adding the group before (figure 2b).

    The first block of a stage convolves its groups apart and pools the last one.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        downsample: nn.Module | None,
        options: BlockOptions,
        scales: int = 4,
        base_width: int = 26,
    ) -> None:
        super().__init__()
        norm, key = options.norm, options.norm.kind
        self.norm_names = (f"{key}1", f"{key}3")
        self.width = int(channels * base_width / CHANNELS)
        out_channels = channels * self.expansion
        self.conv1 = options.conv(in_channels, self.width * scales, 1, bias=False)
        self.add_module(self.norm_names[0], norm(self.width * scales))
        self.convs = nn.ModuleList(
            options.middle_conv(
                self.width, self.width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
            )
            for _ in range(scales - 1)
        )
        self.bns = nn.ModuleList(norm(self.width) for _ in range(scales - 1))
        self.conv3 = options.conv(self.width * scales, out_channels, 1, bias=False)
        self.add_module(self.norm_names[1], norm(out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.pool = nn.AvgPool2d(3, stride=stride, padding=1) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        norm1, norm3 = (self.get_submodule(name) for name in self.norm_names)
        groups = self.relu(norm1(self.conv1(x))).split(self.width, dim=1)
        outs: list[Tensor] = []
        for group, conv, norm in zip(groups, self.convs, self.bns):
            chained = outs and self.downsample is None
            outs.append(self.relu(norm(conv(group + outs[-1] if chained else group))))
        out = norm3(self.conv3(torch.cat((*outs, self.pool(groups[-1])), dim=1)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


res2net = partial(ResNet, block=Bottle2neck, deep_stem_channels=64, average_shortcut=True)
"""Res2Net 26w x 4s on the v1d frame, by depth; further arguments are those of ``ResNet``."""
