"""Detectors as the first generation of the zoo computed them: boxes whose sides include their last pixel, and RoIAlign
without the shift by half a pixel.

Shape letters: N boxes, A anchors of a location.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..assigners import MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..boxes import clip_boxes
from ..coders import DeltaCoder
from ..detectors.single_stage import SingleStageDetector
from ..detectors.two_stage import TwoStageDetector
from ..losses import SmoothL1Loss
from ..necks.fpn import FPN
from ..priors import AnchorGrid, base_anchors, octave_scales
from ..roi.box_head import BoxHead
from ..roi.extractor import roi_align_extractor
from ..roi.standard import StandardRoIHead
from ..settings import DenseTest, ProposalSettings
from ..structures import ImageSize
from .cascade_rcnn import cascade_mask_rcnn, first_stage
from .faster_rcnn import faster_rcnn
from .mask_rcnn import mask_rcnn
from .retinanet import STRIDES, RetinaHead
from .rpn import RPNHead
from .ssd import Layout, ssd_bases


@dataclass(frozen=True)
class LegacyDeltaCoder(DeltaCoder):
    """Deltas between boxes whose width is ``x2 - x1 + 1``; decoded boxes end at the last pixel of the image."""

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy priors and boxes to (N, 4) deltas (dx, dy, dw, dh)."""
        priors, boxes = priors.float(), boxes.float()
        prior_centre, prior_size = (priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2] + 1
        centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2] + 1
        deltas = torch.cat(((centre - prior_centre) / prior_size, (size / prior_size).log()), dim=1)
        return (deltas - deltas.new_tensor(self.means)) / deltas.new_tensor(self.stds)

    def decode(self, priors: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(..., 4) xyxy priors and deltas to (..., 4) xyxy boxes; ``size`` is the image's (h, w)."""
        deltas = codes * codes.new_tensor(self.stds) + codes.new_tensor(self.means)
        centre = (priors[..., :2] + priors[..., 2:]) / 2
        prior_size = priors[..., 2:] - priors[..., :2] + 1
        limit = abs(math.log(self.max_ratio))
        centre = centre + prior_size * deltas[..., :2]
        half = prior_size * deltas[..., 2:].clamp(-limit, limit).exp() / 2
        boxes = torch.cat((centre - half, centre + half), dim=-1)
        if size is None or not self.clip:
            return boxes
        return clip_boxes(boxes, (size[0] - 1, size[1] - 1))


def rounded_inside(boxes: Tensor, centre: float) -> Tensor:
    """(A, 4) boxes around the origin, one pixel narrower, moved to ``centre`` and rounded to whole pixels."""
    half = (boxes[:, 2:] - boxes[:, :2] - 1) / 2
    return torch.cat((centre - half, centre + half), dim=1).round()


def legacy_ssd_anchors(layout: Layout) -> AnchorGrid:
    """SSD's default boxes with whole-pixel sides."""
    bases = [
        rounded_inside(base, (stride - 1) / 2) for base, stride in zip(ssd_bases(layout), layout.strides, strict=True)
    ]
    return AnchorGrid(layout.strides, bases)


def legacy_anchors(
    strides: Sequence[int], scales: Sequence[float], ratios: Sequence[float] = (0.5, 1.0, 2.0)
) -> AnchorGrid:
    """Anchors centred on the middle of each cell, their sides rounded to whole pixels."""
    bases = [rounded_inside(base_anchors(s, scales, ratios), (s - 1) / 2) for s in strides]
    return AnchorGrid(strides, bases)


RPN_ANCHORS = legacy_anchors((4, 8, 16, 32, 64), (8,))

rpn_head = partial(
    RPNHead,
    anchors=RPN_ANCHORS,
    coder=LegacyDeltaCoder(),
    box_loss=SmoothL1Loss(beta=1 / 9),
    training=ProposalSettings(candidates_per_level=2000, max_per_image=2000),
)
bbox_head = partial(BoxHead, coder=LegacyDeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)), box_loss=SmoothL1Loss())
bbox_roi_extractor = partial(roi_align_extractor, 7, sampling_ratio=2, aligned=False)
mask_roi_extractor = partial(roi_align_extractor, 14, sampling_ratio=2, aligned=False)


def legacy_faster_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Faster R-CNN of the first generation."""
    return faster_rcnn(
        num_classes,
        backbone=backbone,
        rpn_head=rpn_head,
        bbox_roi_extractor=bbox_roi_extractor,
        bbox_head=bbox_head,
        roi_head=partial(StandardRoIHead, assigner=MaxIoUAssigner(0.5, 0.5, min_positive=0.5, match_low_quality=True)),
    )


def legacy_mask_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Mask R-CNN of the first generation."""
    return mask_rcnn(
        num_classes,
        backbone=backbone,
        rpn_head=rpn_head,
        bbox_roi_extractor=bbox_roi_extractor,
        bbox_head=bbox_head,
        mask_roi_extractor=mask_roi_extractor,
    )


def legacy_cascade_mask_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Cascade Mask R-CNN of the first generation."""
    return cascade_mask_rcnn(
        num_classes,
        backbone=backbone,
        rpn_head=partial(first_stage, anchors=RPN_ANCHORS, coder=LegacyDeltaCoder()),
        bbox_roi_extractor=bbox_roi_extractor,
        coder=LegacyDeltaCoder,
        mask_roi_extractor=mask_roi_extractor,
    )


def legacy_retinanet(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """RetinaNet of the first generation."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, start=1, extra="input"),
        bbox_head=RetinaHead(
            num_classes=num_classes,
            anchors=legacy_anchors(STRIDES, octave_scales(4, 3)),
            coder=LegacyDeltaCoder(),
            box_loss=SmoothL1Loss(beta=0.11),
        ),
        test=DenseTest(),
    )
