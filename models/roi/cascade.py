"""The second stage of Cascade R-CNN, and the steps that its descendants share.

Shape letters: R regions of all images, P proposals of one image, Q positive regions, K classes, M mask size, D code
size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ..assigners import MaxIoUAssigner
from ..detectors.two_stage import RoIHead
from ..samplers import RandomSampler, Sampler
from ..settings import RoITest
from ..structures import Detections, ImageBatch, OpenBatch, Targets
from .box_head import RegionHead, region_labels
from .mask_head import FCNMaskHead
from .masks import MaskBranch, RegionMasks, detected_rois
from .rois import Assign, SampledRegions, sample_batch, to_rois
from .standard import box_detections, is_there, open_box_detections

M = TypeVar("M", bound=nn.Module)

STAGE_WEIGHTS = (1.0, 0.5, 0.25)
"""What the losses of the three stages count."""


class CascadeRoIHead(RoIHead):
    """Stages that each refine the boxes of the one before, trained at a growing overlap (Cascade R-CNN, section 4).

    One extractor and one head for each stage. At test time the class logits and the masks are averaged over the
    stages. assigners and samplers: one for each stage.
    """

    def __init__(
        self,
        *,
        bbox_roi_extractor: Sequence[nn.Module],
        bbox_head: Sequence[RegionHead],
        mask_roi_extractor: Sequence[nn.Module] = (),
        mask_head: Sequence[FCNMaskHead] = (),
        assigners: Sequence[Assign] | None = None,
        samplers: Sequence[Sampler] | None = None,
        stage_weights: Sequence[float] = STAGE_WEIGHTS,
    ) -> None:
        super().__init__()
        self.bbox_roi_extractor, self.mask_roi_extractor = stages(bbox_roi_extractor), stages(mask_roi_extractor)
        self.bbox_head, self.mask_head = stages(bbox_head), stages(mask_head)
        self.num_classes = bbox_head[0].num_classes
        self.assigners = list(assigners or cascade_assigners())
        self.samplers = list(samplers or cascade_samplers())
        self.stage_weights = tuple(stage_weights)

    def boxes_forward(self, stage: int, features: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """(R, 5) regions to a stage's class logits and box codes."""
        return self.bbox_head[stage](self.bbox_roi_extractor[stage](features, rois))

    def masks_forward(self, stage: int, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """(R, 5) regions to a stage's (R, K, M, M) mask logits."""
        return self.mask_head[stage](self.mask_roi_extractor[stage](features, rois))

    def loss(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        images: ImageBatch,
        targets: Sequence[Targets],
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for stage, (head, weight) in enumerate(zip(self.bbox_head, self.stage_weights, strict=True)):
            regions = sample_batch(proposals, targets, self.assigners[stage], self.samplers[stage])
            logits, codes = self.boxes_forward(stage, features, to_rois([r.boxes for r in regions]))
            with record_function("losses"):
                own = head.loss(logits, codes, regions)
            add_stage_losses(losses, stage, weight, own)
            if len(self.mask_head):
                masks = self.masks_forward(stage, features, to_rois([r.positive_boxes for r in regions]))
                add_stage_losses(losses, stage, weight, self.mask_head[stage].loss(masks, regions, targets))
            if stage + 1 < len(self.bbox_head):
                proposals = refined_regions(head, regions, logits, codes, images)
        return losses

    def predict_boxes(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], images: ImageBatch, test: RoITest
    ) -> tuple[list[Detections], MaskBranch | None]:
        detections = cascade_detections(
            lambda stage, rois: self.boxes_forward(stage, features, rois), self.bbox_head, proposals, images, test
        )
        if not len(self.mask_head):
            return detections, None

        def masks(found: Sequence[Detections]) -> RegionMasks:
            rois = detected_rois(found, images)
            each = [self.masks_forward(stage, features, rois).sigmoid() for stage in range(len(self.mask_head))]
            return RegionMasks(torch.stack(each).mean(dim=0))

        return detections, masks


def stages(parts: Sequence[M]) -> Sequence[M]:
    """The parts of all stages as one module, which is read like the sequence that it was made from."""
    return nn.ModuleList(parts)  # type: ignore[return-value]


def cascade_assigners(match_low_quality: bool = False) -> list[MaxIoUAssigner]:
    """The overlaps from which on a region is positive: 0.5, 0.6 and 0.7."""
    return [MaxIoUAssigner(u, u, min_positive=u, match_low_quality=match_low_quality) for u in (0.5, 0.6, 0.7)]


def cascade_samplers() -> list[RandomSampler]:
    """512 regions of each image, a quarter of them positive, in each of three stages."""
    return [RandomSampler(num=512, pos_fraction=0.25, add_ground_truth=True) for _ in range(3)]


def add_stage_losses(losses: dict[str, Tensor], stage: int, weight: float, own: dict[str, Tensor]) -> None:
    """Put a stage's loss terms, weighted, into ``losses`` under names such as ``s0.loss_cls``."""
    for name, value in own.items():
        losses[f"s{stage}.{name}"] = value * weight


@torch.no_grad()
def refined_regions(
    head: RegionHead, regions: Sequence[SampledRegions], logits: Tensor, codes: Tensor, images: ImageBatch
) -> list[Tensor]:
    """What the next stage is trained on: the sampled regions of each image, moved by this stage.

    Background regions move as their best class would. Ground truths among the regions are left out, since the next
    stage adds them again.
    """
    labels = region_labels(regions, head.num_classes)
    labels = torch.where(labels == head.num_classes, logits[:, :-1].argmax(dim=1), labels)
    counts = [len(r.boxes) for r in regions]
    refined = []
    for region, label, code, size in zip(regions, labels.split(counts), codes.split(counts), images.sizes):
        refined.append(head.refine(region.boxes, label, code, size)[~region.is_ground_truth])
    return refined


def cascade_detections(
    boxes_forward: Callable[[int, Tensor], tuple[Tensor, Tensor]],
    heads: Sequence[RegionHead],
    proposals: Sequence[Tensor],
    images: ImageBatch,
    test: RoITest,
) -> list[Detections]:
    """Detections from the boxes of the last stage and the class logits averaged over the stages.

    boxes_forward: from a stage's number and (R, 5) regions to its (R, K + 1) logits and (R, D) codes.
    """
    *earlier, last = heads
    if isinstance(images, OpenBatch):
        boxes, there = proposals[0], is_there(proposals[0])
        regions, logits = boxes.shape[1], []
        for stage, head in enumerate(earlier):
            own, codes = boxes_forward(stage, to_rois([boxes]))
            logits.append(own)
            size = images.each_size(regions)
            moved = head.refine(boxes.flatten(0, 1), own[:, :-1].argmax(dim=1), codes, size)
            boxes = moved.unflatten(0, (-1, regions))
        own, codes = boxes_forward(len(earlier), to_rois([boxes]))
        mean = torch.stack((*logits, own)).mean(dim=0)
        return open_box_detections(last, boxes, mean, codes, images, test, there)
    counts = [len(p) for p in proposals]
    averaged: list[Tensor] = []
    for stage, head in enumerate(earlier):
        logits, codes = boxes_forward(stage, to_rois(proposals))
        averaged.append(logits)
        labels = logits[:, :-1].argmax(dim=1)
        moved = zip(proposals, labels.split(counts), codes.split(counts), images.sizes)
        proposals = [head.refine(boxes, label, code, size) for boxes, label, code, size in moved]
    logits, codes = boxes_forward(len(earlier), to_rois(proposals))
    mean = torch.stack((*averaged, logits)).mean(dim=0)
    return box_detections(last, proposals, mean, codes, images, test)
