"""Mask R-CNN: He et al., "Mask R-CNN". Faster R-CNN with a mask branch beside the box branch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..assigners import MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..detectors.two_stage import ProposalHead, TwoStageDetector
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead
from ..roi.extractor import roi_align_extractor
from ..roi.mask_head import FCNMaskHead, MaskHead
from ..roi.standard import StandardRoIHead
from ..settings import RoITest
from .rpn import RPNHead


def mask_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
    rpn_head: Callable[[], ProposalHead] = RPNHead,
    bbox_roi_extractor: Callable[[], nn.Module] = partial(roi_align_extractor, 7),
    bbox_head: Callable[..., BoxHead] = BoxHead,
    mask_roi_extractor: Callable[[], nn.Module] = partial(roi_align_extractor, 14),
    mask_head: Callable[..., MaskHead] = FCNMaskHead,
    roi_head: Callable[..., StandardRoIHead] = StandardRoIHead,
    test: RoITest | None = None,
) -> TwoStageDetector:
    """Mask R-CNN on a backbone with four stages.

    The parts are given as what builds them: ``neck`` from the backbone's channels to a five-level pyramid of 256
    channels, the heads from ``num_classes``, ``roi_head`` from the extractors, the heads and the assigner.
    """
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=rpn_head(),
        roi_head=roi_head(
            bbox_roi_extractor=bbox_roi_extractor(),
            bbox_head=bbox_head(num_classes=num_classes),
            mask_roi_extractor=mask_roi_extractor(),
            mask_head=mask_head(num_classes=num_classes),
            assigner=MaxIoUAssigner(0.5, 0.5, min_positive=0.5, match_low_quality=True),
        ),
        test=test,
    )
