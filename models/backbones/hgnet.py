"""HGNetV2 of PaddleClas, as D-FINE uses it: blocks that keep the outputs of all their layers and squeeze them together.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import ConvModule
from ..layers.norm import BN, Norm
from .resnet import StagedBackbone


@dataclass(frozen=True)
class Size:
    """Channels of the stem inside and out; layers of a block; for each stage channels inside and out, and blocks."""

    stem: tuple[int, int]
    layers: int
    stages: tuple[tuple[int, int, int], ...]


SIZES = {
    "b0": Size((16, 16), 3, ((16, 64, 1), (32, 256, 1), (64, 512, 2), (128, 1024, 1))),
    "b1": Size((24, 32), 3, ((32, 64, 1), (48, 256, 1), (96, 512, 2), (192, 1024, 1))),
    "b2": Size((24, 32), 4, ((32, 96, 1), (64, 384, 1), (128, 768, 3), (256, 1536, 1))),
    "b3": Size((24, 32), 5, ((32, 128, 1), (64, 512, 1), (128, 1024, 3), (256, 2048, 1))),
    "b4": Size((32, 48), 6, ((48, 128, 1), (96, 512, 1), (192, 1024, 3), (384, 2048, 1))),
    "b5": Size((32, 64), 6, ((64, 128, 1), (128, 512, 2), (256, 1024, 5), (512, 2048, 2))),
    "b6": Size((48, 96), 6, ((96, 192, 2), (192, 512, 3), (384, 1024, 6), (768, 2048, 3))),
}


class Affine(nn.Module):
    """One scale and one shift for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


@dataclass(frozen=True)
class Conv:
    """Makes convolutions with normalization. affine: whether an ``Affine`` stands behind activations."""

    norm: Norm
    affine: bool

    def __call__(
        self, in_channels: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> ConvModule:
        activation = nn.Sequential(nn.ReLU(), Affine()) if self.affine else nn.ReLU()
        return ConvModule(
            in_channels,
            channels,
            kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
            groups=groups,
            norm=self.norm,
            activation=activation if active else None,
        )


class Stem(nn.Module):
    """(B, 3, H, W) to (B, C, H / 4, W / 4) through two branches."""

    def __init__(self, inner: int, channels: int, conv: Conv) -> None:
        super().__init__()
        self.stem1 = conv(3, inner, 3, stride=2)
        self.stem2a = conv(inner, inner // 2, 2)
        self.stem2b = conv(inner // 2, inner, 2)
        self.stem3 = conv(2 * inner, inner, 3, stride=2)
        self.stem4 = conv(inner, channels, 1)
        self.pool = nn.MaxPool2d(2, stride=1, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem1(x), (0, 1, 0, 1))
        branch = self.stem2b(F.pad(self.stem2a(x), (0, 1, 0, 1)))
        return self.stem4(self.stem3(torch.cat((self.pool(x), branch), dim=1)))


class Block(nn.Module):
    """Layers one after another, whose outputs are all squeezed into (B, C, H, W).

    light: a layer is a 1 x 1 and a depthwise convolution of size ``kernel``. residual: the input is added.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        channels: int,
        *,
        layers: int,
        kernel: int,
        light: bool,
        residual: bool,
        conv: Conv,
    ) -> None:
        super().__init__()
        self.residual = residual
        inputs = [in_channels] + [inner] * (layers - 1)
        self.layers = nn.ModuleList(
            nn.Sequential(conv(c, inner, 1, active=False), conv(inner, inner, kernel, groups=inner))
            if light
            else conv(c, inner, kernel)
            for c in inputs
        )
        total = in_channels + layers * inner
        self.aggregation = nn.Sequential(conv(total, channels // 2, 1), conv(channels // 2, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        out = self.aggregation(torch.cat(outputs, dim=1))
        return out + x if self.residual else out


class HGNetV2(StagedBackbone):
    """(B, 3, H, W) to one map for each of ``out_stages``; ``out_channels`` lists their channels.

    size: ``b0`` to ``b6``. affine: whether every activation is scaled and shifted. frozen_stages and norm_eval as of
    ``StagedBackbone``.
    """

    def __init__(
        self,
        size: str,
        *,
        affine: bool = False,
        norm: Norm = BN,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        out_stages: Sequence[int] = (1, 2, 3),
    ) -> None:
        super().__init__(frozen_stages=frozen_stages, norm_eval=norm_eval, out_stages=out_stages)
        if size not in SIZES:
            raise ValueError(f"HGNetV2.size: expected one of {', '.join(SIZES)}, found {size!r}")
        layout, conv = SIZES[size], Conv(norm, affine)
        self.stem = Stem(*layout.stem, conv)
        channels = layout.stem[1]
        for index, (inner, out, blocks) in enumerate(layout.stages):
            light = index > 1
            make = partial(Block, layers=layout.layers, kernel=5 if light else 3, light=light, conv=conv)
            parts = [make(channels if i == 0 else out, inner, out, residual=i > 0) for i in range(blocks)]
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            if index > 0:
                stage["downsample"] = conv(channels, channels, 3, stride=2, groups=channels, active=False)
            stage["blocks"] = nn.Sequential(*parts)
            self.add_stage(nn.Sequential(stage))
            channels = out
        self.out_channels = tuple(layout.stages[stage][1] for stage in self.out_stages)
        self.freeze_parts()

    def stem_parts(self) -> list[nn.Module]:
        """The modules before the first stage."""
        return [self.stem]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.run_stages(self.stem(x))
