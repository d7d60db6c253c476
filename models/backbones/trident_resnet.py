"""ResNet whose third stage has several branches of the same weights but different dilations (Li et al., "Scale-Aware
Trident Networks for Object Detection", section 4).

Shape letters: B images, T branches, C channels, H x W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.norm import BN, Norm
from .resnet import Deform, ResNet

DILATIONS = (1, 2, 3)
TEST_DILATION = 2
"""At test time the branch in the middle stands for all (section 4.4)."""


class TridentConv2d(nn.Conv2d):
    """A 3 x 3 convolution whose dilation is the branch's: while training (T B, C, H, W), branch by branch; else
    (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.dilated(x, TEST_DILATION)
        return torch.cat([self.dilated(own, d) for own, d in zip(x.chunk(len(DILATIONS)), DILATIONS, strict=True)])

    def dilated(self, x: Tensor, dilation: int) -> Tensor:
        """The convolution with this dilation, whose output has the size of that without."""
        return F.conv2d(x, self.weight, self.bias, self.stride, padding=dilation, dilation=dilation)


class TridentResNet(ResNet):
    """The stem and three stages, of which the last gives the output: (B, 3, H, W) to one map of stride 16, which is
    (T B, C, h, w) while training, branch by branch, else (B, C, h, w). depth, style and norm: as of ``ResNet``."""

    def __init__(self, depth: int = 50, *, style: str = "pytorch", norm: Norm = BN) -> None:
        super().__init__(
            depth,
            style=style,
            norm=norm,
            deform=Deform(TridentConv2d, stages=(False, False, True)),
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_stages=(2,),
        )

    def run_stages(self, x: Tensor) -> tuple[Tensor, ...]:
        """The stem's output to the last stage's."""
        *shared, last = (self.get_submodule(name) for name in self.stage_names)
        for stage in shared:
            x = stage(x)
        if self.training:
            x = x.repeat(len(DILATIONS), 1, 1, 1)
        return (last(x),)
