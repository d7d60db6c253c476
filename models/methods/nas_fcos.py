"""NAS-FCOS: Wang et al., "NAS-FCOS: Fast Neural Architecture Search for Object Detection". FCOS with a searched
pyramid and, in one of its two forms, searched towers.

Shape letters: B images, C channels, H x W locations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..backbones.resnet import ResNet
from ..detectors.single_stage import SingleStageDetector
from ..layers import GN, ConvModule, ModulatedDeformConv2d, Norm
from ..necks.nas_fcos_fpn import NASFCOSFPN
from .fcos import fcos, group_normalized_tower


def searched_tower(in_channels: int = 256, channels: int = 256, norm: Norm | None = GN) -> nn.Sequential:
    """Deformable 3 x 3, plain 3 x 3, deformable 3 x 3 and 1 x 1 convolutions (section 4.1, figure 5)."""
    conv = partial(ModulatedDeformConv2d, offset_groups=2)
    deformed = partial(ConvModule, out_channels=channels, kernel_size=3, padding=1, bias=True, norm=norm, conv=conv)
    return nn.Sequential(
        deformed(in_channels, activation=nn.ReLU(inplace=True)),
        ConvModule(channels, channels, 3, padding=1, norm=norm, activation=nn.ReLU(inplace=True)),
        deformed(channels, activation=nn.ReLU(inplace=True)),
        ConvModule(channels, channels, 1, norm=norm, activation=nn.ReLU(inplace=True)),
    )


def nas_fcos(num_classes: int, *, backbone: Callable[[], ResNet], searched_head: bool = True) -> SingleStageDetector:
    """NAS-FCOS on a backbone with four stages; ``searched_head``: searched towers rather than those of FCOS."""
    return fcos(
        num_classes,
        backbone=backbone,
        neck=NASFCOSFPN,
        build_tower=searched_tower if searched_head else group_normalized_tower,
        nms_threshold=0.6,
    )
