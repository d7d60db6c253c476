"""The second stage of Faster and Mask R-CNN.

Shape letters: R regions of all images, P proposals of one image, N detections of one image, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ..assigners import MaxIoUAssigner
from ..boxes import to_output_frame
from ..dense.open_sizes import NOT_THERE, open_region_detections
from ..dense.postprocess import multiclass_nms
from ..detectors.two_stage import RoIHead
from ..samplers import RandomSampler, Sampler
from ..settings import RoITest
from ..structures import Detections, ImageBatch, OpenBatch, Targets
from .box_head import RegionHead
from .mask_head import MaskHead
from .masks import MaskBranch, RegionMasks, detected_rois
from .rois import Assign, SampledRegions, sample_batch, to_rois


class StandardRoIHead(RoIHead):
    """Boxes, and masks where there is a mask head, from the same proposals.

    mask_roi_extractor: none where the mask head reads the box head's region features. shared_head: layers that every
    region passes through first (C4 networks).
    """

    def __init__(
        self,
        *,
        bbox_roi_extractor: nn.Module,
        bbox_head: RegionHead,
        mask_roi_extractor: nn.Module | None = None,
        mask_head: MaskHead | None = None,
        shared_head: nn.Module | None = None,
        assigner: Assign | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__()
        self.bbox_roi_extractor, self.bbox_head = bbox_roi_extractor, bbox_head
        self.mask_roi_extractor, self.mask_head = mask_roi_extractor, mask_head
        self.shared_head = shared_head
        self.num_classes = bbox_head.num_classes
        self.assigner = assigner or MaxIoUAssigner(0.5, 0.5, min_positive=0.5, match_low_quality=False)
        self.sampler = sampler or RandomSampler(num=512, pos_fraction=0.25, add_ground_truth=True)

    def region_features(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """(R, 5) regions to (R, C, S, S) for the box head."""
        x = self.bbox_roi_extractor(features, rois)
        return x if self.shared_head is None else self.shared_head(x)

    def boxes_forward(self, features: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """(R, 5) regions to their class logits and box codes."""
        return self.bbox_head(self.region_features(features, rois))

    def masks_forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """(R, 5) regions to (R, K, M, M) mask logits."""
        if self.mask_head is None or self.mask_roi_extractor is None:
            raise ValueError("this RoI head has no mask branch")
        return self.mask_head(self.mask_roi_extractor(features, rois))

    def sample(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets]
    ) -> list[SampledRegions]:
        """The regions that are trained on, image by image."""
        return sample_batch(proposals, targets, self.assigner, self.sampler)

    def loss(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        images: ImageBatch,
        targets: Sequence[Targets],
    ) -> dict[str, Tensor]:
        regions = self.sample(features, proposals, targets)
        logits, codes = self.boxes_forward(features, to_rois([r.boxes for r in regions]))
        with record_function("losses"):
            losses = self.bbox_head.loss(logits, codes, regions)
        if self.mask_head is not None:
            losses.update(self.mask_losses(features, regions, targets))
        return losses

    def mask_losses(
        self, features: Sequence[Tensor], regions: Sequence[SampledRegions], targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """Loss terms of the mask branch, which is trained on the positive regions of each image."""
        masks = self.masks_forward(features, to_rois([r.positive_boxes for r in regions]))
        return self.mask_head.loss(masks, regions, targets)  # type: ignore[union-attr]

    def predict_boxes(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], images: ImageBatch, test: RoITest
    ) -> tuple[list[Detections], MaskBranch | None]:
        logits, codes = self.boxes_forward(features, to_rois(proposals))
        detections = box_detections(self.bbox_head, proposals, logits, codes, images, test)
        if self.mask_head is None:
            return detections, None

        def masks(found: Sequence[Detections]) -> RegionMasks:
            labels = torch.cat([d.labels.flatten() for d in found])
            return self.region_masks(features, detected_rois(found, images), labels)

        return detections, masks

    def region_masks(self, features: Sequence[Tensor], rois: Tensor, labels: Tensor) -> RegionMasks:
        """The masks of (R, 5) detected regions with (R,) labels."""
        return RegionMasks(self.masks_forward(features, rois).sigmoid())


def box_detections(
    head: RegionHead,
    proposals: Sequence[Tensor],
    logits: Tensor,
    codes: Tensor,
    images: ImageBatch,
    test: RoITest,
) -> list[Detections]:
    """Detections of each image from its (P, 4) proposals and what ``head`` says of all of them: (R, K + 1) class logits
    and (R, D) box codes."""
    if isinstance(images, OpenBatch):
        return open_box_detections(head, proposals[0], logits, codes, images, test)
    counts = [len(p) for p in proposals]
    detections = []
    for index, (own_logits, own_codes) in enumerate(zip(logits.split(counts), codes.split(counts))):
        boxes = head.decode(proposals[index], own_codes, images.sizes[index])
        scores, factors = head.scores(own_logits), head.confidences(own_codes)
        detections.append(region_detections(boxes, scores, images, index, test, factors))
    return detections


def open_box_detections(
    head: RegionHead,
    proposals: Tensor,
    logits: Tensor,
    codes: Tensor,
    images: OpenBatch,
    test: RoITest,
    there: Tensor | None = None,
) -> list[Detections]:
    """``box_detections`` of an OpenBatch.

    proposals: (B, P, 4). there: (B, P) bool which of them there are; by default those with an area, as all proposals
    of a first stage have.
    """
    regions = proposals.shape[1]
    if there is None:
        there = is_there(proposals)
    boxes = head.decode(proposals.flatten(0, 1), codes, images.each_size(regions))
    scores = torch.where(there[..., None], head.scores(logits).unflatten(0, (-1, regions)), NOT_THERE)
    factors = head.confidences(codes)
    return open_region_detections(
        boxes.unflatten(0, (-1, regions)),
        scores,
        images,
        test,
        None if factors is None else factors.unflatten(0, (-1, regions)),
    )


def is_there(proposals: Tensor) -> Tensor:
    """(B, P) bool: which of the (B, P, 4) proposals of an OpenBatch are no padding."""
    return (proposals[..., 2:] > proposals[..., :2]).all(dim=-1)


def region_detections(
    boxes: Tensor, scores: Tensor, images: ImageBatch, index: int, test: RoITest, factors: Tensor | None = None
) -> Detections:
    """(P, 4) or (P, K, 4) boxes in batch pixels, (P, K) scores and (P,) factors of one image to its detections."""
    found, _ = multiclass_nms(
        to_output_frame(boxes, images, index),
        scores,
        score_threshold=test.score_threshold,
        nms_threshold=test.nms_threshold,
        max_per_image=test.max_per_image,
        soft_nms=test.soft_nms,
        factors=factors,
    )
    return found
