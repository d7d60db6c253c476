"""Feature pyramid network (Lin et al., "Feature Pyramid Networks for Object Detection").

Shape letters: B images, C channels, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.init import init_xavier
from ..layers.norm import Norm


class FPN(nn.Module):
    """Top-down pyramid: backbone maps of growing stride to ``num_outs`` maps of ``out_channels`` channels.

    start: the first backbone map that is used. extra: where levels beyond the backbone come from:
    ``pool`` (subsampled last map), or stride-2 convolutions on ``input`` (last backbone map), ``lateral`` or
    ``output`` (last pyramid map). relu_before_extra: a ReLU before every extra convolution but the first.
    lateral_norm: whether ``norm`` also follows the lateral convolutions. upsample: ``nearest`` or ``bilinear``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        num_outs: int = 5,
        start: int = 0,
        extra: str = "pool",
        relu_before_extra: bool = False,
        norm: Norm | None = None,
        lateral_norm: bool = True,
        upsample: str = "nearest",
        conv: Callable[..., nn.Module] = nn.Conv2d,
    ) -> None:
        super().__init__()
        if extra not in ("pool", "input", "lateral", "output"):
            raise ValueError(f"FPN.extra: expected 'pool', 'input', 'lateral' or 'output', found {extra!r}")
        self.start, self.num_outs, self.extra, self.relu_before_extra = start, num_outs, extra, relu_before_extra
        self.upsample, self.align_corners = upsample, False if upsample == "bilinear" else None
        used = list(in_channels)[start:]
        self.lateral_convs = nn.ModuleList(
            ConvModule(c, out_channels, 1, norm=norm if lateral_norm else None, conv=conv) for c in used
        )
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, norm=norm, conv=conv) for _ in used
        )
        if extra != "pool":
            for index in range(num_outs - len(used)):
                source = used[-1] if index == 0 and extra == "input" else out_channels
                self.fpn_convs.append(ConvModule(source, out_channels, 3, stride=2, padding=1, norm=norm, conv=conv))
        self.out_channels = (out_channels,) * num_outs
        init_xavier(self)

    def top_down(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The lateral maps, each with the larger ones above it added."""
        used = inputs[self.start :]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, used, strict=True)]
        for index in range(len(laterals) - 1, 0, -1):
            size = laterals[index - 1].shape[2:]
            larger = F.interpolate(laterals[index], size=size, mode=self.upsample, align_corners=self.align_corners)
            laterals[index - 1] = laterals[index - 1] + larger
        return laterals

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        laterals = self.top_down(inputs)
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        return self.with_extra(outs, inputs[-1], laterals[-1])

    def with_extra(self, outs: list[Tensor], last_input: Tensor, last_lateral: Tensor) -> tuple[Tensor, ...]:
        """The maps of the pyramid and the levels beyond the backbone."""
        if self.extra == "pool":
            while len(outs) < self.num_outs:
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
            return tuple(outs)
        last = {"input": last_input, "lateral": last_lateral, "output": outs[-1]}[self.extra]
        for index, conv in enumerate(list(self.fpn_convs)[len(outs) :]):
            last = conv(F.relu(last) if index > 0 and self.relu_before_extra else last)
            outs.append(last)
        return tuple(outs)
