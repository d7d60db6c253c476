"""NAS-FPN: Ghiasi et al., "NAS-FPN: Learning Scalable Feature Pyramid Architecture for Object Detection".

Shape letters: B images, C channels, H x W pixels of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.norm import BN

# The merging cells of one stage (figure 6) in order: operation, two inputs, output level, own convolution.
# A level's name means its newest map; "4a" is the second map of level 4.
CELLS: tuple[tuple[str, str, str, str, str, bool], ...] = (
    ("gp_64_4", "pool", "6", "4", "4b", True),
    ("sum_44_4", "sum", "4b", "4", "4a", True),
    ("sum_43_3", "sum", "4a", "3", "3", True),
    ("sum_34_4", "sum", "3", "4a", "4", True),
    ("gp_43_5", "pool", "4", "3", "5b", False),
    ("sum_55_5", "sum", "5", "5b", "5", True),
    ("gp_54_7", "pool", "5", "4a", "7b", False),
    ("sum_77_7", "sum", "7", "7b", "7", True),
    ("gp_75_6", "pool", "7", "5", "6", True),
)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) to (B, C, *size): nearest upsampling, or max pooling of the map padded to a multiple of it."""
    height, width = x.shape[2:]
    if (height, width) == tuple(size):
        return x
    if height < size[0] or width < size[1]:
        return F.interpolate(x, size=tuple(size), mode="nearest")
    pad_height, pad_width = -height % size[0], -width % size[1]
    x = F.pad(x, (pad_width // 2, pad_width - pad_width // 2, pad_height // 2, pad_height - pad_height // 2))
    step = (x.shape[2] // size[0], x.shape[3] // size[1])
    return F.max_pool2d(x, step, stride=step)


class MergingCell(nn.Module):
    """Two maps, resized to one size, are summed, or the first is weighed by the second's global pooling and added
    (figure 5); then ReLU and convolution, where ``convolved``."""

    def __init__(self, channels: int, operation: str, convolved: bool) -> None:
        super().__init__()
        self.operation = operation
        self.out_conv = ConvModule(channels, channels, 3, padding=1, bias=True, norm=BN) if convolved else None

    def forward(self, first: Tensor, second: Tensor, size: Sequence[int]) -> Tensor:
        first, second = resized(first, size), resized(second, size)
        if self.operation == "pool":
            first = second.mean(dim=(2, 3), keepdim=True).sigmoid() * first
        merged = first + second
        return merged if self.out_conv is None else self.out_conv(merged.relu())


class NASFPN(nn.Module):
    """A pyramid of levels 3 to 7 from the backbone's last three maps, merged in ``stages`` searched stages."""

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256, *, stages: int = 7) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(c, out_channels, 1, norm=BN) for c in in_channels[-3:])
        self.extra_downsamples = nn.ModuleList(
            nn.Sequential(ConvModule(out_channels, out_channels, 1, norm=BN), nn.MaxPool2d(2, 2)) for _ in range(2)
        )
        self.fpn_stages = nn.ModuleList(
            nn.ModuleDict({name: MergingCell(out_channels, operation, own) for name, operation, _, _, _, own in CELLS})
            for _ in range(stages)
        )
        self.out_channels = (out_channels,) * 5
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        levels = [conv(x) for conv, x in zip(self.lateral_convs, inputs[-3:], strict=True)]
        for downsample in self.extra_downsamples:
            levels.append(downsample(levels[-1]))
        sizes = [level.shape[2:] for level in levels]
        maps = dict(zip("34567", levels, strict=True))
        for stage in self.fpn_stages:
            for name, _, first, second, target, _ in CELLS:
                size = sizes[int(target[0]) - 3]
                maps[target] = stage[name](maps[first], maps[second], size)  # type: ignore[index]
        return tuple(maps[name] for name in "34567")
