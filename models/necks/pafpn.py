"""PAFPN: Liu et al., "Path Aggregation Network for Instance Segmentation", section 3.1.

Shape letters: B images, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.init import init_xavier
from ..layers.norm import Norm
from .fpn import FPN


class PAFPN(FPN):
    """A feature pyramid with a second, bottom-up path; further ``options`` as of ``FPN``."""

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        start: int = 0,
        norm: Norm | None = None,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, start=start, norm=norm, conv=conv, **options)
        steps = len(in_channels) - start - 1
        self.downsample_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, stride=2, padding=1, norm=norm, conv=conv) for _ in range(steps)
        )
        self.pafpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, norm=norm, conv=conv) for _ in range(steps)
        )
        init_xavier(self.downsample_convs)
        init_xavier(self.pafpn_convs)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        laterals = self.top_down(inputs)
        inner = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        outs = [inner[0]]
        for index, (down, conv) in enumerate(zip(self.downsample_convs, self.pafpn_convs, strict=True)):
            inner[index + 1] = inner[index + 1] + down(inner[index])
            outs.append(conv(inner[index + 1]))
        return self.with_extra(outs, inputs[-1], laterals[-1])
