"""Fast R-CNN: Girshick, "Fast R-CNN", on a feature pyramid. The second stage of Faster R-CNN on given proposals."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..backbones.resnet import ResNet
from ..detectors.two_stage import TwoStageDetector
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead
from ..roi.extractor import roi_align_extractor
from ..roi.standard import StandardRoIHead


def fast_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
) -> TwoStageDetector:
    """Fast R-CNN on a backbone with four stages; proposals come with the targets, or as an argument."""
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=None,
        roi_head=StandardRoIHead(bbox_roi_extractor=roi_align_extractor(7), bbox_head=BoxHead(num_classes=num_classes)),
    )
