"""Recursive feature pyramid (Qiao et al., "DetectoRS: Detecting Objects with Recursive Feature Pyramid and Switchable
Atrous Convolution", section 3).

Shape letters: B images, C channels, H x W locations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..layers.init import init_kaiming
from .fpn import FPN


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: four convolutions of different width, of which the last reads the average of the
    whole map; (B, C, H, W) to (B, 4 C', H, W)."""

    def __init__(self, in_channels: int, out_channels: int, dilations: Sequence[int] = (1, 3, 6, 1)) -> None:
        super().__init__()
        self.aspp = nn.ModuleList()
        for dilation in dilations:
            size, padding = (1, 0) if dilation == 1 else (3, dilation)
            self.aspp.append(nn.Conv2d(in_channels, out_channels, size, padding=padding, dilation=dilation))
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        *local, last = self.aspp
        outputs = [conv(x).relu() for conv in local]
        average = last(x.mean(dim=(2, 3), keepdim=True)).relu()
        return torch.cat((*outputs, average.expand_as(outputs[-1])), dim=1)


class RFP(FPN):
    """A pyramid that is fed back into a second backbone, whose pyramid is then mixed with the first.

    Takes the image and the maps of the first backbone. backbone: builds the second one, which takes the image and the
    levels that are fed back.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 256, *, backbone: Callable[..., nn.Module]
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.rfp_modules = nn.ModuleList([backbone(feedback_channels=out_channels)])
        self.rfp_aspp = ASPP(out_channels, out_channels // 4)
        self.rfp_weight = nn.Conv2d(out_channels, 1, 1)
        nn.init.zeros_(self.rfp_weight.weight)
        nn.init.zeros_(self.rfp_weight.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        image, *maps = inputs
        first = super().forward(maps)
        feedback = [first[0], *(self.rfp_aspp(level) for level in first[1 : len(maps)])]
        second = super().forward(self.rfp_modules[0](image, feedback))
        mixed = []
        for old, new in zip(first, second, strict=True):
            share = self.rfp_weight(new).sigmoid()
            mixed.append(share * new + (1 - share) * old)
        return tuple(mixed)
