"""Balanced feature pyramid of Libra R-CNN (Pang et al., "Libra R-CNN: Towards Balanced Learning for Object Detection",
section 3.2).

Shape letters: B images, C channels, H x W pixels of the level in which the others meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.init import init_xavier


class NonLocal(nn.Module):
    """Adds to every pixel what all pixels say, weighed by likeness (Wang et al., "Non-local Neural Networks", embedded
    Gaussian): (B, C, H, W) to (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = ConvModule(channels, channels, 1)
        self.conv_out = ConvModule(channels, channels, 1)
        self.theta = ConvModule(channels, channels, 1)
        self.phi = ConvModule(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))
        attention = torch.matmul(query.transpose(1, 2), key).softmax(dim=-1)
        context = torch.matmul(value, attention.transpose(1, 2))
        return x + self.conv_out(context.reshape(x.shape))


class BFP(nn.Module):
    """Averages all levels at the size of one of them, refines the average, and adds it to every level.

    level: the one whose size it is. Each (B, C, h, w) of a pyramid to the same shape.
    """

    def __init__(self, channels: int = 256, *, level: int) -> None:
        super().__init__()
        self.level = level
        self.refine = NonLocal(channels)
        init_xavier(self)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        size = inputs[self.level].shape[2:]
        gathered = [
            F.adaptive_max_pool2d(x, size) if index < self.level else F.interpolate(x, size=size, mode="nearest")
            for index, x in enumerate(inputs)
        ]
        balanced = self.refine(torch.stack(gathered).mean(dim=0))
        outs = []
        for index, x in enumerate(inputs):
            if index < self.level:
                outs.append(x + F.interpolate(balanced, size=x.shape[2:], mode="nearest"))
            else:
                outs.append(x + F.adaptive_max_pool2d(balanced, x.shape[2:]))
        return tuple(outs)
