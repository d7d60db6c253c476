"""Deformable convolutions (Dai et al., "Deformable Convolutional Networks").

Shape letters: B images, C channels, H x W pixels, k kernel size, G offset groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


def deformed(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    mask: Tensor | None = None,
) -> Tensor:
    """``torchvision.ops.deform_conv2d``, computed in float32 where half precision comes in: its kernels know no
    bfloat16, and offsets must not be rounded."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    offset, weight = offset.to(dtype), weight.to(dtype)
    bias, mask = (None if one is None else one.to(dtype) for one in (bias, mask))
    return deform_conv2d(x.to(dtype), offset, weight, bias, stride, padding, dilation, mask).to(x.dtype)  # type: ignore[arg-type]


class GuidedDeformConv2d(nn.Conv2d):
    """Deformable convolution whose offsets are given with the map, without bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, padding: int = 0) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, H, W) and (B, 2 k k, H', W') offsets, (y, x) by (y, x), to (B, C', H', W')."""
        return deformed(x, offset, self.weight, None, self.stride, self.padding, self.dilation)  # type: ignore[arg-type]


class FeatureAdaption(nn.Module):
    """A deformable convolution whose taps follow from the predicted shape of the box at each location (Wang et al.,
    "Region Proposal by Guided Anchoring", section 3.3): (B, C, H, W) and (B, S, H, W) shapes to (B, C, H, W).

    shape_channels: S.
    """

    def __init__(self, shape_channels: int, channels: int, offset_groups: int = 4) -> None:
        super().__init__()
        self.conv_offset = nn.Conv2d(shape_channels, offset_groups * 18, 1, bias=False)
        self.conv_adaption = GuidedDeformConv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.conv_offset.weight, std=0.1)

    def forward(self, x: Tensor, shapes: Tensor) -> Tensor:
        return self.conv_adaption(x, self.conv_offset(shapes)).relu()


class DeformConv2d(nn.Conv2d):
    """Deformable convolution (Dai et al., "Deformable Convolutional Networks", eq. 2) with its offset branch.

    ``conv_offset`` predicts (B, 2 G k k, H', W') offsets, (y, x) by (y, x); it starts at zero, as a plain convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        offset_groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=bias
        )
        self.conv_offset = nn.Conv2d(
            in_channels,
            offset_groups * self.values_per_tap * kernel_size**2,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    values_per_tap = 2

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.conv_offset(x), None)

    def convolve(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        """The deformed convolution with given offsets (B, 2 G k k, H', W') and modulation (B, G k k, H', W')."""
        return deformed(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)  # type: ignore[arg-type]


class ModulatedDeformConv2d(DeformConv2d):
    """Deformable convolution with a learnt weight for every tap (Zhu et al., "Deformable ConvNets v2", eq. 1)."""

    values_per_tap = 3

    def forward(self, x: Tensor) -> Tensor:
        offset_y, offset_x, mask = self.conv_offset(x).chunk(3, dim=1)
        return self.convolve(x, torch.cat((offset_y, offset_x), dim=1), mask.sigmoid())
