"""Dynamic R-CNN: Zhang et al., "Dynamic R-CNN: Towards High Quality Object Detection via Dynamic Training".

Faster R-CNN whose second stage becomes stricter as proposals improve: the overlap from which on a region is positive
and the width of the box loss follow the statistics of the last steps.

Shape letters: P proposals of one image, Q positive regions of all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..assigners import Assignment, MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..detectors.two_stage import TwoStageDetector
from ..losses import SmoothL1Loss
from ..roi.box_head import BoxHead
from ..roi.rois import Assign, SampledRegions, sample_batch
from ..roi.standard import StandardRoIHead
from ..samplers import Sampler
from ..settings import ProposalSettings
from ..structures import Targets
from .faster_rcnn import faster_rcnn
from .rpn import RPNHead

INITIAL_OVERLAP = 0.4
INITIAL_BETA = 1.0


class DynamicRoIHead(StandardRoIHead):
    """The second stage that adapts every ``interval`` steps (algorithm 1).

    overlap_rank and code_rank: K_I, the rank of the overlap that is noted of each image, and K_beta / B, that of the
    regression target, by image. The statistics are those of the running training; they are not part of a checkpoint.
    """

    bbox_head: BoxHead

    def __init__(
        self,
        *,
        bbox_roi_extractor: torch.nn.Module,
        bbox_head: BoxHead,
        assigner: Assign | None = None,
        sampler: Sampler | None = None,
        overlap_rank: int = 75,
        code_rank: int = 10,
        interval: int = 100,
    ) -> None:
        super().__init__(bbox_roi_extractor=bbox_roi_extractor, bbox_head=bbox_head, assigner=assigner, sampler=sampler)
        self.overlap_rank, self.code_rank, self.interval = overlap_rank, code_rank, interval
        self.overlaps: list[Tensor] = []
        self.codes: list[Tensor] = []

    def sample(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets]
    ) -> list[SampledRegions]:
        """The regions that are trained on, by the threshold of the last steps, whose statistics are noted."""
        if len(self.overlaps) == self.interval:
            self.adapt()
        noted = []

        def assign(priors: Tensor, boxes: Tensor, ignore: Tensor | None) -> Assignment:
            assignment = self.assigner(priors, boxes, ignore)
            noted.append(ranked_overlap(assignment.with_ground_truth(len(boxes)).overlaps, self.overlap_rank))
            return assignment

        regions = sample_batch(proposals, targets, assign, self.sampler)
        self.overlaps.append(torch.stack(noted).mean())
        boxes = torch.cat([r.positive_boxes for r in regions])
        if len(boxes):
            shift = self.bbox_head.coder.encode(boxes, torch.cat([r.matched_boxes for r in regions]))[:, :2]
            rank = min(self.code_rank * len(targets), len(boxes))
            self.codes.append(shift.abs().mean(dim=1).kthvalue(rank).values)
        return regions

    def adapt(self) -> None:
        """Take threshold (eq. 3) and width of the loss (eq. 5) from the statistics, and start these anew."""
        threshold = max(INITIAL_OVERLAP, float(torch.stack(self.overlaps).mean()))
        self.assigner = MaxIoUAssigner(threshold, threshold, min_positive=threshold, match_low_quality=False)
        median = float(torch.stack(self.codes).quantile(0.5)) if self.codes else 0.0
        if median > 0:
            self.bbox_head.box_loss = SmoothL1Loss(beta=min(INITIAL_BETA, median))
        self.overlaps, self.codes = [], []


def ranked_overlap(overlaps: Tensor, rank: int) -> Tensor:
    """The overlap of that rank, counted from the largest; the smallest where there are fewer, zero where none."""
    if len(overlaps) == 0:
        return overlaps.new_zeros(())
    return overlaps.topk(min(rank, len(overlaps))).values[-1]


def dynamic_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Dynamic R-CNN on a backbone with four stages."""
    return faster_rcnn(
        num_classes,
        backbone=backbone,
        rpn_head=partial(
            RPNHead,
            training=ProposalSettings(candidates_per_level=2000, nms_threshold=0.85),
            testing=ProposalSettings(nms_threshold=0.85),
        ),
        bbox_head=partial(BoxHead, box_loss=SmoothL1Loss()),
        roi_head=DynamicRoIHead,
    )
