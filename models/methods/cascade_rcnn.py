"""Cascade R-CNN and Cascade Mask R-CNN: Cai and Vasconcelos, "Cascade R-CNN: High Quality Object Detection and
Instance Segmentation". Faster R-CNN with three second stages, each on the boxes of the one before and trained at a
higher overlap; Cascade Mask R-CNN adds a mask branch to every stage.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..backbones.resnet import ResNet
from ..coders import BoxCoder, DeltaCoder
from ..detectors.two_stage import ProposalHead, TwoStageDetector
from ..losses import SmoothL1Loss
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead
from ..roi.cascade import CascadeRoIHead
from ..roi.extractor import roi_align_extractor
from ..roi.mask_head import FCNMaskHead
from ..settings import ProposalSettings, RoITest
from .rpn import RPNHead

STAGES = 3
STAGE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
"""Deviations of the box codes, which become smaller as boxes become better."""

first_stage = partial(
    RPNHead,
    box_loss=SmoothL1Loss(beta=1 / 9),
    border=0,
    training=ProposalSettings(candidates_per_level=2000, max_per_image=2000),
)
"""The proposal head of the cascades: trained on anchors inside the image, it keeps 2000 proposals for training."""


def box_heads(
    num_classes: int,
    head: Callable[..., BoxHead] = BoxHead,
    coder: Callable[..., BoxCoder] = DeltaCoder,
) -> list[BoxHead]:
    """The class-agnostic box head of every stage, of which only the coder differs."""
    return [
        head(num_classes=num_classes, class_agnostic=True, coder=coder(stds=stds), box_loss=SmoothL1Loss())
        for stds in STAGE_STDS
    ]


def cascade_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
    rpn_head: Callable[[], ProposalHead] = first_stage,
    bbox_roi_extractor: Callable[[], nn.Module] = partial(roi_align_extractor, 7),
    bbox_head: Callable[..., BoxHead] = BoxHead,
    coder: Callable[..., BoxCoder] = DeltaCoder,
    test: RoITest | None = None,
) -> TwoStageDetector:
    """Cascade R-CNN on a backbone with four stages.

    The parts are given as what builds them: ``neck`` from the backbone's channels to a five-level pyramid of 256
    channels, ``bbox_head`` from ``num_classes``, ``class_agnostic``, ``coder`` and ``box_loss``, ``coder`` from the
    deviations ``stds`` of a stage.
    """
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=rpn_head(),
        roi_head=CascadeRoIHead(
            bbox_roi_extractor=[bbox_roi_extractor() for _ in range(STAGES)],
            bbox_head=box_heads(num_classes, bbox_head, coder),
        ),
        test=test,
    )


def cascade_mask_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
    rpn_head: Callable[[], ProposalHead] = first_stage,
    bbox_roi_extractor: Callable[[], nn.Module] = partial(roi_align_extractor, 7),
    bbox_head: Callable[..., BoxHead] = BoxHead,
    coder: Callable[..., BoxCoder] = DeltaCoder,
    mask_roi_extractor: Callable[[], nn.Module] = partial(roi_align_extractor, 14),
    mask_head: Callable[..., FCNMaskHead] = FCNMaskHead,
    test: RoITest | None = None,
) -> TwoStageDetector:
    """Cascade Mask R-CNN: as ``cascade_rcnn``, with a ``mask_head`` (from ``num_classes``) in every stage."""
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=rpn_head(),
        roi_head=CascadeRoIHead(
            bbox_roi_extractor=[bbox_roi_extractor() for _ in range(STAGES)],
            bbox_head=box_heads(num_classes, bbox_head, coder),
            mask_roi_extractor=[mask_roi_extractor() for _ in range(STAGES)],
            mask_head=[mask_head(num_classes=num_classes) for _ in range(STAGES)],
        ),
        test=test,
    )
