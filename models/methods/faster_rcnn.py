"""Faster R-CNN: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", on a
feature pyramid (Lin et al., "Feature Pyramid Networks for Object Detection", section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..backbones.resnet import ResNet
from ..detectors.two_stage import ProposalHead, TwoStageDetector
from ..necks.fpn import FPN
from ..priors import anchor_grid
from ..roi.box_head import BoxHead, RegionHead
from ..roi.extractor import roi_align_extractor
from ..roi.standard import StandardRoIHead
from ..settings import ProposalSettings, RoITest
from .rpn import RPNHead


def faster_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
    rpn_head: Callable[[], ProposalHead] = RPNHead,
    bbox_roi_extractor: Callable[[], nn.Module] = partial(roi_align_extractor, 7),
    bbox_head: Callable[..., RegionHead] = BoxHead,
    roi_head: Callable[..., StandardRoIHead] = StandardRoIHead,
    test: RoITest | None = None,
) -> TwoStageDetector:
    """Faster R-CNN on a backbone with four stages.

    The parts are given as what builds them: ``neck`` from the backbone's channels to a five-level pyramid of 256
    channels, ``bbox_head`` from ``num_classes``, ``roi_head`` from the extractor and the head.
    """
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=rpn_head(),
        roi_head=roi_head(bbox_roi_extractor=bbox_roi_extractor(), bbox_head=bbox_head(num_classes=num_classes)),
        test=test,
    )


def faster_rcnn_dc5(num_classes: int, *, backbone: Callable[..., ResNet]) -> TwoStageDetector:
    """Faster R-CNN without a pyramid, on the last stage alone, dilated instead of strided (stride 16).

    Anchors of all scales stand on that one map (Deformable ConvNets, section 4.1, "Faster R-CNN").
    """
    body = backbone(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_stages=(3,))
    channels = body.out_channels[0]
    return TwoStageDetector(
        backbone=body,
        neck=None,
        rpn_head=RPNHead(
            in_channels=channels,
            channels=channels,
            anchors=anchor_grid((16,), scales=(2, 4, 8, 16, 32), ratios=(0.5, 1.0, 2.0)),
            border=0,
            training=ProposalSettings(candidates_per_level=12000, max_per_image=2000),
            testing=ProposalSettings(candidates_per_level=6000),
        ),
        roi_head=StandardRoIHead(
            bbox_roi_extractor=roi_align_extractor(7, (16,)),
            bbox_head=BoxHead(num_classes=num_classes, in_channels=channels),
        ),
    )
