"""Hybrid Task Cascade: Chen et al., "Hybrid Task Cascade for Instance Segmentation".

Cascade Mask R-CNN, changed in three ways: the mask branch of a stage is trained on the boxes that this stage has just
refined (section 3.1), it also reads the mask features of the stages before (section 3.2), and both branches read the
features of a semantic segmentation branch (section 3.3).

Shape letters: R regions of all images, C channels, S region size, K classes, M mask size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..detectors.two_stage import RoIHead, TwoStageDetector
from ..layers import ConvModule
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead
from ..roi.cascade import (
    STAGE_WEIGHTS,
    add_stage_losses,
    cascade_assigners,
    cascade_detections,
    cascade_samplers,
    refined_regions,
    stages,
)
from ..roi.extractor import roi_align_extractor
from ..roi.mask_head import FCNMaskHead
from ..roi.masks import MaskBranch, RegionMasks, detected_rois
from ..roi.rois import Assign, sample_batch, to_rois
from ..roi.semantic_head import COCO_STUFF_CLASSES, FusedSemanticHead, add_semantic, semantic_roi_extractor
from ..samplers import Sampler
from ..settings import RoITest
from ..structures import Detections, ImageBatch, Targets
from .cascade_rcnn import STAGES, box_heads, first_stage


class HTCMaskHead(FCNMaskHead):
    """A mask head that can add the mask features of the stage before to its own input.

    follows: whether there is a stage before. layers: further arguments of ``FCNMaskHead``.
    """

    def __init__(self, *, num_classes: int, follows: bool, channels: int = 256, **layers: Any) -> None:
        super().__init__(num_classes=num_classes, **{"in_channels": channels, **layers}, channels=channels)
        self.conv_res = (
            ConvModule(channels, channels, 1, norm=layers.get("norm"), activation=nn.ReLU(inplace=True))
            if follows
            else None
        )

    def shared(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        """(R, C, S, S) region features, and what ``shared`` of the stage before gave, to this stage's features."""
        if self.conv_res is not None and previous is not None:
            x = x + self.conv_res(previous)
        return super().shared(x)


class HTCRoIHead(RoIHead):
    """Stages of boxes and masks that run in turn; without ``semantic_head`` there is no semantic branch.

    assigners and samplers: one for each stage.
    """

    def __init__(
        self,
        *,
        bbox_roi_extractor: Sequence[nn.Module],
        bbox_head: Sequence[BoxHead],
        mask_roi_extractor: Sequence[nn.Module],
        mask_head: Sequence[HTCMaskHead],
        semantic_head: FusedSemanticHead | None,
        semantic_extractor: nn.Module | None = None,
        assigners: Sequence[Assign] | None = None,
        samplers: Sequence[Sampler] | None = None,
        stage_weights: Sequence[float] = STAGE_WEIGHTS,
    ) -> None:
        super().__init__()
        self.bbox_roi_extractor, self.mask_roi_extractor = stages(bbox_roi_extractor), stages(mask_roi_extractor)
        self.bbox_head, self.mask_head = stages(bbox_head), stages(mask_head)
        self.semantic_head = semantic_head
        self.semantic_roi_extractor = semantic_extractor or semantic_roi_extractor()
        self.num_classes = bbox_head[0].num_classes
        self.assigners = list(assigners or cascade_assigners(match_low_quality=True))
        self.samplers = list(samplers or cascade_samplers())
        self.stage_weights = tuple(stage_weights)

    def with_semantic(self, x: Tensor, semantic: Tensor | None, rois: Tensor) -> Tensor:
        """(R, C, S, S) region features plus the semantic features of the (R, 5) regions, where there are any."""
        return x if semantic is None else add_semantic(x, self.semantic_roi_extractor, semantic, rois)

    def boxes_forward(
        self, stage: int, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(R, 5) regions to a stage's class logits and box codes."""
        x = self.bbox_roi_extractor[stage](features, rois)
        return self.bbox_head[stage](self.with_semantic(x, semantic, rois))

    def masks_forward(
        self, stage: int, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor
    ) -> list[Tensor]:
        """(R, 5) regions to the mask features of the stages up to this one, each reading those before."""
        x = self.with_semantic(self.mask_roi_extractor[stage](features, rois), semantic, rois)
        flow: list[Tensor] = []
        for head in self.mask_head[: stage + 1]:
            flow.append(head.shared(x, flow[-1] if flow else None))
        return flow

    def loss(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        images: ImageBatch,
        targets: Sequence[Targets],
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        semantic = None
        if self.semantic_head is not None:
            logits, semantic = self.semantic_head(features)
            losses.update(self.semantic_head.loss(logits, targets))
        for stage, (box_head, mask_head, weight) in enumerate(
            zip(self.bbox_head, self.mask_head, self.stage_weights, strict=True)
        ):
            assign, sampler = self.assigners[stage], self.samplers[stage]
            regions = sample_batch(proposals, targets, assign, sampler)
            logits, codes = self.boxes_forward(stage, features, semantic, to_rois([r.boxes for r in regions]))
            add_stage_losses(losses, stage, weight, box_head.loss(logits, codes, regions))
            proposals = refined_regions(box_head, regions, logits, codes, images)
            regions = sample_batch(proposals, targets, assign, sampler)
            flow = self.masks_forward(stage, features, semantic, to_rois([r.positive_boxes for r in regions]))
            add_stage_losses(losses, stage, weight, mask_head.loss(mask_head.logits(flow[-1]), regions, targets))
        return losses

    def predict_boxes(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], images: ImageBatch, test: RoITest
    ) -> tuple[list[Detections], MaskBranch]:
        semantic = None if self.semantic_head is None else self.semantic_head(features)[1]
        detections = cascade_detections(
            lambda stage, rois: self.boxes_forward(stage, features, semantic, rois),
            self.bbox_head,
            proposals,
            images,
            test,
        )

        def masks(found: Sequence[Detections]) -> RegionMasks:
            flow = self.masks_forward(len(self.bbox_head) - 1, features, semantic, detected_rois(found, images))
            each = [head.logits(x).sigmoid() for head, x in zip(self.mask_head, flow, strict=True)]
            return RegionMasks(torch.stack(each).mean(dim=0))

        return detections, masks


def htc(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module] = FPN,
    semantic: int | None = COCO_STUFF_CLASSES,
) -> TwoStageDetector:
    """Hybrid Task Cascade on a backbone with four stages.

    neck: builds a five-level pyramid of 256 channels from the backbone's channels. semantic: number of classes of the
    semantic branch; none leaves the branch out, for datasets without class maps.
    """
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        rpn_head=first_stage(),
        roi_head=HTCRoIHead(
            bbox_roi_extractor=[roi_align_extractor(7) for _ in range(STAGES)],
            bbox_head=box_heads(num_classes),
            mask_roi_extractor=[roi_align_extractor(14) for _ in range(STAGES)],
            mask_head=[HTCMaskHead(num_classes=num_classes, follows=stage > 0) for stage in range(STAGES)],
            semantic_head=None if semantic is None else FusedSemanticHead(num_classes=semantic),
        ),
        test=RoITest(score_threshold=0.001),
    )
