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
from ..settings import RoITest


def fast_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
    bbox_head: Callable[..., BoxHead] = BoxHead,
    roi_head: Callable[..., StandardRoIHead] = StandardRoIHead,
    test: RoITest | None = None,
) -> TwoStageDetector:
    """Fast R-CNN on a backbone with four stages; proposals come with the targets, or as an argument.

    The parts are given as what builds them: ``neck`` from the backbone's channels to a five-level pyramid of 256
    channels, ``bbox_head`` from ``num_classes``, ``roi_head`` from the extractor and the head.
    """
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=None,
        roi_head=roi_head(bbox_roi_extractor=roi_align_extractor(7), bbox_head=bbox_head(num_classes=num_classes)),
        test=test,
    )
