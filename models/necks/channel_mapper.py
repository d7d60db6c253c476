"""Maps of equal channels without mixing of levels (Deformable DETR, appendix A.2).

Shape letters: B images, C channels, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.init import init_xavier
from ..layers.norm import Norm


class ChannelMapper(nn.Module):
    """A normalized convolution of every map, and further levels by 3 x 3 convolutions of stride 2, the first of them on
    the last input; ``activation``: each with a ReLU."""

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        num_outs: int = 4,
        kernel_size: int = 1,
        norm: Norm | None = None,
        activation: bool = False,
    ) -> None:
        super().__init__()
        act = nn.ReLU(inplace=True) if activation else None
        self.convs = nn.ModuleList(
            ConvModule(c, out_channels, kernel_size, padding=kernel_size // 2, norm=norm, activation=act)
            for c in in_channels
        )
        self.extra_convs = nn.ModuleList(
            ConvModule(
                in_channels[-1] if i == 0 else out_channels,
                out_channels,
                3,
                stride=2,
                padding=1,
                norm=norm,
                activation=act,
            )
            for i in range(num_outs - len(in_channels))
        )
        self.out_channels = (out_channels,) * num_outs
        init_xavier(self)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outs = [conv(x) for conv, x in zip(self.convs, inputs, strict=True)]
        last = inputs[-1]
        for conv in self.extra_convs:
            last = conv(last)
            outs.append(last)
        return tuple(outs)
