"""HRNet: Sun et al., "Deep High-Resolution Representation Learning for Visual Recognition".

Branches of four resolutions run side by side and exchange what they see after every module.

Shape letters: B images, C channels of the finest branch, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.norm import BN
from .resnet import BasicBlock, BlockOptions, Bottleneck, freeze_batch_norm, init_backbone, residual_stage

BLOCKS = 4
MODULES = (1, 4, 3)
OPTIONS = BlockOptions()


def conv_bn(in_channels: int, out_channels: int, stride: int, activation: bool = True) -> nn.Sequential:
    """A 3 x 3 convolution with batch normalization, and ReLU where wanted."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        BN(out_channels),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if activation else nn.Sequential(*layers)


class Exchange(nn.Module):
    """One module: four residual blocks on every branch, then every branch receives all others (figure 3)."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            residual_stage(BasicBlock, c, c, expansion=1, blocks=BLOCKS, stride=1, dilation=1, options=OPTIONS)
            for c in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.path(source, target, channels) for source in range(len(channels)))
            for target in range(len(channels))
        )
        self.relu = nn.ReLU()

    @staticmethod
    def path(source: int, target: int, channels: Sequence[int]) -> nn.Module:
        """From one branch to another: upsampled later where finer, strided where coarser."""
        wanted = channels[target]
        if source == target:
            return nn.Identity()
        if source > target:
            return nn.Sequential(nn.Conv2d(channels[source], wanted, 1, bias=False), BN(wanted))
        steps = [conv_bn(channels[source], channels[source], 2) for _ in range(target - source - 1)]
        return nn.Sequential(*steps, conv_bn(channels[source], wanted, 2, activation=False))

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        xs = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        outs = []
        for target, paths in enumerate(self.fuse_layers):
            size = xs[target].shape[2:]
            total = None
            for source, path in enumerate(paths):  # type: ignore[arg-type]
                part = path(xs[source])
                if source > target:
                    part = F.interpolate(part, size=size, mode="nearest")
                total = part if total is None else total + part
            outs.append(self.relu(total))
        return outs


def transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """What makes the inputs of the next stage: branches that stay, change channels, or start anew from the last."""
    paths = nn.ModuleList()
    for index, channels in enumerate(after):
        if index < len(before):
            same = before[index] == channels
            paths.append(nn.Identity() if same else conv_bn(before[index], channels, 1))
        else:
            steps = index + 1 - len(before)
            paths.append(
                nn.Sequential(
                    *(conv_bn(before[-1], channels if step == steps - 1 else before[-1], 2) for step in range(steps))
                )
            )
    return paths


class HRNet(nn.Module):
    """HRNetV2 of width C: (B, 3, H, W) to four maps of C, 2 C, 4 C and 8 C channels and stride 4 to 32.

    Batch normalization uses its running statistics while training; nothing is frozen.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = BN(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = BN(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_stage(
            Bottleneck, 64, 64, expansion=4, blocks=BLOCKS, stride=1, dilation=1, options=OPTIONS
        )
        channels = [256]
        for stage, modules in enumerate(MODULES):
            wider = [width * 2**branch for branch in range(stage + 2)]
            self.add_module(f"transition{stage + 1}", transition(channels, wider))
            self.add_module(f"stage{stage + 2}", nn.Sequential(*(Exchange(wider) for _ in range(modules))))
            channels = wider
        self.out_channels = tuple(channels)
        init_backbone(self)

    def train(self, mode: bool = True) -> HRNet:
        super().train(mode)
        if mode:
            freeze_batch_norm(self)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        xs = [self.layer1(x)]
        for stage in range(len(MODULES)):
            paths = self.get_submodule(f"transition{stage + 1}")
            # A new branch starts from the coarsest one.
            sources = [xs[min(index, len(xs) - 1)] for index in range(stage + 2)]
            inputs = [path(source) for path, source in zip(paths, sources, strict=True)]  # type: ignore[arg-type]
            xs = self.get_submodule(f"stage{stage + 2}")(inputs)
        return tuple(xs)
