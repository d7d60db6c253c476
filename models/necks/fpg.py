"""FPG: Chen et al., "Feature Pyramid Grids".

Shape letters: B images, C channels; p pathways, l levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.norm import BN, Norm

PATHWAYS = 9
"""As many as are published."""


class ActConv(nn.Module):
    """ReLU, convolution, then normalization where given."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, norm: Norm | None = BN
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=(kernel_size - 1) // 2, bias=norm is None
        )
        self.bn = None if norm is None else norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.relu())
        return x if self.bn is None else self.bn(x)


class UpConv(nn.Module):
    """Nearest upsampling by two, then ``ActConv``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ActConv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class OutConv(nn.Module):
    """The convolution on the last pathway."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_out = ActConv(in_channels, out_channels, 3, norm=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(x)


class FPG(nn.Module):
    """Parallel bottom-up pathways with lateral, downward and skip connections (figure 2), triangularly contracted.

    inner_channels: of the pathways; ``out_channels`` where not given. skips: the pathways that each level does not take
    part in. start and extra_convs: the first backbone map used, and whether levels beyond the backbone are made by
    strided convolutions (else by subsampling).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        inner_channels: int | None = None,
        pathways: int = PATHWAYS,
        skips: Sequence[Sequence[int]] = ((0, 1, 2, 3), (0, 1, 2), (0, 1), (0,), ()),
        start: int = 0,
        extra_convs: bool = False,
    ) -> None:
        super().__init__()
        self.start, self.skips = start, [set(s) for s in skips]
        channels, levels = inner_channels or out_channels, len(skips)
        used = list(in_channels)[start:]
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in used)
        self.extra_downsamples = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) if extra_convs else nn.MaxPool2d(1, stride=2)
            for _ in range(levels - len(used))
        )
        self.fpn_transitions = nn.ModuleList(
            nn.ModuleList(self.connections(pathway, level, levels, channels) for level in range(levels))
            for pathway in range(pathways)
        )
        self.output_transition = nn.ModuleList(OutConv(channels, out_channels) for _ in range(levels))
        self.out_channels = (out_channels,) * levels
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def connections(self, pathway: int, level: int, levels: int, channels: int) -> nn.ModuleDict:
        """What one node of the grid adds up; empty where the level skips the pathway."""
        if pathway in self.skips[level]:
            return nn.ModuleDict()
        parts = nn.ModuleDict()
        if level > 0:
            parts["same_up"] = ActConv(channels, channels, 3, stride=2)
        parts["across_lateral"] = ActConv(channels, channels, 1)
        if level < levels - 1:
            parts["across_down"] = UpConv(channels)
        parts["across_skip"] = ActConv(channels, channels, 1)
        return parts

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        first = [conv(x) for conv, x in zip(self.lateral_convs, inputs[self.start :], strict=True)]
        for downsample in self.extra_downsamples:
            first.append(downsample(first[-1]))
        current = first
        for nodes in self.fpn_transitions:
            following: list[Tensor] = []
            for level, parts in enumerate(nodes):  # type: ignore[arg-type]
                if not len(parts):
                    following.append(current[level])
                    continue
                total = parts["across_lateral"](current[level])
                if "same_up" in parts:
                    total = parts["same_up"](following[-1]) + total
                if "across_down" in parts:
                    total = total + parts["across_down"](current[level + 1])
                following.append(total + parts["across_skip"](first[level]))
            current = following
        return tuple(conv(x) for conv, x in zip(self.output_transition, current, strict=True))
