"""Double-Head R-CNN: Wu et al., "Rethinking Classification and Localization for Object Detection". Faster R-CNN whose
second stage classifies with fully connected layers and regresses with convolutions, these on a larger region.

Shape letters: R regions of all images, C channels, S region size, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.resnet import BlockOptions, Bottleneck, ResNet
from ..boxes import box_centres, box_sizes
from ..detectors.two_stage import TwoStageDetector
from ..layers import BN, ConvModule
from ..layers.init import init_kaiming, init_xavier
from ..layers.linear import fc_layers
from ..losses import BoxLoss, CrossEntropy, SmoothL1Loss
from ..roi.box_head import BoxHead
from ..roi.extractor import RoIExtractor, roi_align_extractor
from .faster_rcnn import faster_rcnn


class WidenedRegions(nn.Module):
    """Features of regions and of the same regions ``factor`` times as large: (R, 5) to (2, R, C, S, S)."""

    def __init__(self, extractor: RoIExtractor | None = None, *, factor: float = 1.3) -> None:
        super().__init__()
        self.extractor, self.factor = extractor or roi_align_extractor(7), factor

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        centre, half = box_centres(rois[:, 1:]), box_sizes(rois[:, 1:]) * self.factor / 2
        widened = torch.cat((rois[:, :1], centre - half, centre + half), dim=1)
        # The larger region is read from the level of the original one.
        level = self.extractor.levels(rois)
        return torch.stack([self.extractor.pool(features, r, level) for r in (rois, widened)])


class WideningBlock(nn.Module):
    """A residual block that raises the number of channels: (R, C, S, S) to (R, C', S, S)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(in_channels, in_channels, 3, padding=1, norm=BN, activation=nn.ReLU(inplace=True))
        self.conv2 = ConvModule(in_channels, out_channels, 1, norm=BN)
        self.conv_identity = ConvModule(in_channels, out_channels, 1, norm=BN)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.conv_identity(x)).relu()


class DoubleBoxHead(BoxHead):
    """Class logits from the first of the region features, box codes from the second, as of ``WidenedRegions``.

    codes: ``coder`` and ``class_agnostic`` as of ``BoxHead``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 256,
        channels: int = 1024,
        fc_channels: int = 1024,
        roi_size: int = 7,
        convs: int = 4,
        fcs: int = 2,
        class_loss: Callable[..., Tensor] | None = None,
        box_loss: BoxLoss | None = None,
        **codes: Any,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_channels=channels,
            fcs=0,
            class_loss=class_loss or CrossEntropy(weight=2.0),
            box_loss=box_loss or SmoothL1Loss(weight=2.0),
            **codes,
        )
        self.fc_cls = nn.Linear(fc_channels, num_classes + 1)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.zeros_(self.fc_cls.bias)
        self.res_block = WideningBlock(in_channels, channels)
        self.conv_branch = nn.ModuleList(
            Bottleneck(channels, channels // 4, stride=1, dilation=1, downsample=None, options=BlockOptions())
            for _ in range(convs)
        )
        self.fc_branch = fc_layers(in_channels * roi_size**2, fc_channels, fcs)
        init_kaiming(self.res_block)
        init_kaiming(self.conv_branch)
        init_xavier(self.fc_branch)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        to_classify, to_regress = x
        codes = self.res_block(to_regress)
        for block in self.conv_branch:
            codes = block(codes)
        logits = to_classify.flatten(1)
        for fc in self.fc_branch:
            logits = fc(logits).relu()
        return self.fc_cls(logits).float(), self.fc_reg(codes.mean(dim=(2, 3))).float()


def double_heads(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Double-Head R-CNN on a backbone with four stages."""
    return faster_rcnn(num_classes, backbone=backbone, bbox_roi_extractor=WidenedRegions, bbox_head=DoubleBoxHead)
