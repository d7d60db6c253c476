"""Mask R-CNN: He et al., "Mask R-CNN". Faster R-CNN with a mask branch beside the box branch."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..assigners import MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..detectors.two_stage import TwoStageDetector
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead
from ..roi.extractor import roi_align_extractor
from ..roi.mask_head import FCNMaskHead
from ..roi.standard import StandardRoIHead
from .rpn import RPNHead


def mask_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
) -> TwoStageDetector:
    """Mask R-CNN on a backbone with four stages; ``neck`` makes a five-level pyramid of 256 channels from theirs."""
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=RPNHead(),
        roi_head=StandardRoIHead(
            bbox_roi_extractor=roi_align_extractor(7),
            bbox_head=BoxHead(num_classes=num_classes),
            mask_roi_extractor=roi_align_extractor(14),
            mask_head=FCNMaskHead(num_classes=num_classes),
            assigner=MaxIoUAssigner(0.5, 0.5, min_positive=0.5, match_low_quality=True),
        ),
    )
