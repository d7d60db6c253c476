"""Faster R-CNN: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", on a
feature pyramid (Lin et al., "Feature Pyramid Networks for Object Detection", section 4).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..backbones.resnet import ResNet
from ..detectors.two_stage import TwoStageDetector
from ..losses import BoxLoss
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead
from ..roi.extractor import roi_align_extractor
from ..roi.standard import StandardRoIHead
from .rpn import RPNHead


def faster_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
    box_loss: BoxLoss | None = None,
) -> TwoStageDetector:
    """Faster R-CNN on a backbone with four stages; ``neck`` makes a five-level pyramid of 256 channels from their
    channels; ``box_loss`` is the second stage's."""
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=RPNHead(),
        roi_head=StandardRoIHead(
            bbox_roi_extractor=roi_align_extractor(7),
            bbox_head=BoxHead(num_classes=num_classes, box_loss=box_loss),
        ),
    )
