"""RegNetX: Radosavovic et al., "Designing Network Design Spaces".

Shape letters: B images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from torch import Tensor, nn

from ..layers.norm import BN, Norm
from .resnet import BlockOptions, Bottleneck, Deform, StagedBackbone, init_backbone, residual_stage

STEM_CHANNELS = 32
DIVISOR = 8

# Name: initial width w_0, slope w_a, quantization w_m, depth d, group width g (section 3.3; table 8 of the appendix).
ARCHITECTURES: dict[str, tuple[int, float, float, int, int]] = {
    "regnetx_400mf": (24, 24.48, 2.54, 22, 16),
    "regnetx_800mf": (56, 35.73, 2.28, 16, 16),
    "regnetx_1.6gf": (80, 34.01, 2.25, 18, 24),
    "regnetx_3.2gf": (88, 26.31, 2.25, 25, 48),
    "regnetx_4.0gf": (96, 38.65, 2.43, 23, 40),
    "regnetx_6.4gf": (184, 60.83, 2.07, 17, 56),
    "regnetx_8.0gf": (80, 49.56, 2.88, 23, 120),
    "regnetx_12gf": (168, 73.36, 2.37, 19, 112),
}


def stage_layout(name: str) -> list[tuple[int, int, int]]:
    """(width, blocks, group width) of each stage of a named RegNetX, by quantizing a line of widths (eqs. 2 to 4)."""
    if name not in ARCHITECTURES:
        raise ValueError(f"RegNet: expected one of {', '.join(ARCHITECTURES)}, found {name!r}")
    initial, slope, factor, depth, group = ARCHITECTURES[name]
    line = initial + slope * np.arange(depth)
    steps = np.round(np.log(line / initial) / np.log(factor))
    widths = np.round(initial * factor**steps / DIVISOR).astype(int) * DIVISOR
    stages = []
    for width, blocks in zip(*np.unique(widths, return_counts=True)):
        own_group = min(group, int(width))
        stages.append((round(int(width) / own_group) * own_group, int(blocks), own_group))
    return stages


class PlainBottleneck(Bottleneck):
    """A bottleneck that does not narrow."""

    expansion = 1


class RegNet(StagedBackbone):
    """A RegNetX by name: (B, 3, H, W) to four maps of stride 4 to 32."""

    def __init__(
        self,
        name: str,
        *,
        frozen_stages: int = 1,
        norm_eval: bool = True,
        norm: Norm = BN,
        deform: Deform | None = None,
        out_stages: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__(frozen_stages=frozen_stages, norm_eval=norm_eval, out_stages=out_stages)
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.norm_name = f"{norm.kind}1"
        self.add_module(self.norm_name, norm(STEM_CHANNELS))
        self.relu = nn.ReLU(inplace=True)
        channels, widths = STEM_CHANNELS, []
        for index, (width, blocks, group) in enumerate(stage_layout(name)):
            deformed = deform is not None and deform.stages[index]
            options = BlockOptions(norm=norm, middle_conv=deform.conv if deform and deformed else nn.Conv2d)
            self.add_stage(
                residual_stage(
                    partial(PlainBottleneck, groups=width // group, base_width=group, base_channels=width),
                    channels,
                    width,
                    expansion=1,
                    blocks=blocks,
                    stride=2,
                    dilation=1,
                    options=options,
                )
            )
            channels = width
            widths.append(width)
        self.out_channels = tuple(widths[index] for index in self.out_stages)
        init_backbone(self)
        self.freeze_parts()

    def stem_parts(self) -> list[nn.Module]:
        """The modules before the first stage."""
        return [self.conv1, self.get_submodule(self.norm_name)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.run_stages(self.relu(self.get_submodule(self.norm_name)(self.conv1(x))))
