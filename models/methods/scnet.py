"""SCNet: Vu et al., "SCNet: Training Inference Sample Consistency for Instance Segmentation".

Hybrid Task Cascade with one mask branch, on the boxes of the last stage in training as in testing (section 3.1). The
mask branch also reads the box features of its regions (feature relay, section 3.2); all regions also read a global
context, learnt by naming the classes of the image (section 3.3).

Shape letters: B images, R regions of all images, Q positive ones, C channels, S region size, F box features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..detectors.two_stage import RoIHead, TwoStageDetector
from ..layers.init import init_kaiming, init_normal
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
from ..roi.rois import Assign, SampledRegions, sample_batch, to_rois
from ..roi.semantic_head import COCO_STUFF_CLASSES, FusedSemanticHead, add_semantic, semantic_roi_extractor
from ..samplers import Sampler
from ..settings import RoITest
from ..structures import Detections, ImageBatch, Targets
from .cascade_rcnn import STAGES, box_heads, first_stage

CHANNELS = 256


class ResidualPair(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, with an activation between the convolutions only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu()) + x


def residual_pairs(count: int, channels: int = CHANNELS) -> list[nn.Module]:
    """What stands in every branch of SCNet instead of plain convolutions."""
    return [ResidualPair(channels) for _ in range(count)]


class SCNetMaskHead(FCNMaskHead):
    """A mask head of residual pairs."""

    def __init__(self, *, num_classes: int, channels: int = CHANNELS, pairs: int = 6, loss_weight: float = 1.0) -> None:
        super().__init__(num_classes=num_classes, channels=channels, convs=0, loss_weight=loss_weight)
        self.convs = nn.ModuleList(residual_pairs(pairs, channels))


class GlobalContextHead(nn.Module):
    """Which classes an image shows: the coarsest level to (B, K) logits and a (B, C, 1, 1) context."""

    def __init__(self, *, num_classes: int, channels: int = CHANNELS, pairs: int = 2, loss_weight: float = 3.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.convs = nn.ModuleList(residual_pairs(pairs, channels))
        self.fc = nn.Linear(channels, num_classes)
        init_normal(self.fc)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        x = features[-1]
        for conv in self.convs:
            x = conv(x)
        context = x.mean(dim=(2, 3), keepdim=True)
        return self.fc(context.flatten(1)).float(), context

    def loss(self, logits: Tensor, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Binary cross-entropy of every class, averaged."""
        wanted = torch.zeros_like(logits)
        for row, target in zip(wanted, targets, strict=True):
            row[target.labels] = 1
        return {"loss_glbctx": self.loss_weight * F.binary_cross_entropy_with_logits(logits, wanted)}


class FeatureRelayHead(nn.Module):
    """Box features as mask features: (R, F) to (R, C, 2 S, 2 S)."""

    def __init__(self, *, in_channels: int = 1024, channels: int = CHANNELS, size: int = 7) -> None:
        super().__init__()
        self.size = size
        self.fc = nn.Linear(in_channels, channels * size**2)
        init_kaiming(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x).reshape(len(x), -1, self.size, self.size)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class SCNetRoIHead(RoIHead):
    """Stages of boxes, then one of masks; assigners and samplers: one for each stage of boxes."""

    def __init__(
        self,
        *,
        bbox_roi_extractor: Sequence[nn.Module],
        bbox_head: Sequence[BoxHead],
        mask_roi_extractor: nn.Module,
        mask_head: SCNetMaskHead,
        semantic_head: FusedSemanticHead | None,
        glbctx_head: GlobalContextHead,
        feat_relay_head: FeatureRelayHead,
        semantic_extractor: nn.Module | None = None,
        assigners: Sequence[Assign] | None = None,
        samplers: Sequence[Sampler] | None = None,
        stage_weights: Sequence[float] = STAGE_WEIGHTS,
    ) -> None:
        super().__init__()
        self.bbox_roi_extractor, self.bbox_head = stages(bbox_roi_extractor), stages(bbox_head)
        self.mask_roi_extractor, self.mask_head = mask_roi_extractor, mask_head
        self.semantic_head = semantic_head
        self.semantic_roi_extractor = semantic_extractor or semantic_roi_extractor()
        self.glbctx_head, self.feat_relay_head = glbctx_head, feat_relay_head
        self.num_classes = bbox_head[0].num_classes
        self.assigners = list(assigners or cascade_assigners(match_low_quality=True))
        self.samplers = list(samplers or cascade_samplers())
        self.stage_weights = tuple(stage_weights)

    def with_context(self, x: Tensor, semantic: Tensor | None, context: Tensor, rois: Tensor) -> Tensor:
        """(R, C, S, S) region features plus the semantic features of the (R, 5) regions and their image's context."""
        if semantic is not None:
            x = add_semantic(x, self.semantic_roi_extractor, semantic, rois)
        return x + context[rois[:, 0].long()]

    def box_features(
        self, stage: int, features: Sequence[Tensor], semantic: Tensor | None, context: Tensor, rois: Tensor
    ) -> Tensor:
        """(R, 5) regions to the (R, F) features of a stage's box head."""
        x = self.bbox_roi_extractor[stage](features, rois)
        return self.bbox_head[stage].shared(self.with_context(x, semantic, context, rois))

    def masks_forward(
        self, features: Sequence[Tensor], semantic: Tensor | None, context: Tensor, rois: Tensor, relayed: Tensor
    ) -> Tensor:
        """(R, 5) regions and their (R, F) features of the last box head to (R, K, M, M) mask logits."""
        x = self.with_context(self.mask_roi_extractor(features, rois), semantic, context, rois)
        return self.mask_head(x + self.feat_relay_head(relayed))

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
        logits, context = self.glbctx_head(features)
        losses.update(self.glbctx_head.loss(logits, targets))
        regions: list[SampledRegions] = []
        shared = context
        for stage, (head, weight) in enumerate(zip(self.bbox_head, self.stage_weights, strict=True)):
            regions = sample_batch(proposals, targets, self.assigners[stage], self.samplers[stage])
            rois = to_rois([r.boxes for r in regions])
            shared = self.box_features(stage, features, semantic, context, rois)
            logits, codes = head.outputs(shared)
            add_stage_losses(losses, stage, weight, head.loss(logits, codes, regions))
            if stage + 1 < len(self.bbox_head):
                proposals = refined_regions(head, regions, logits, codes, images)
        relayed = torch.cat(
            [own[: len(r.matched)] for own, r in zip(shared.split([len(r.boxes) for r in regions]), regions)]
        )
        rois = to_rois([r.positive_boxes for r in regions])
        masks = self.masks_forward(features, semantic, context, rois, relayed)
        own = self.mask_head.loss(masks, regions, targets)
        return {**losses, "loss_mask": sum(self.stage_weights) * own["loss_mask"]}

    def predict_boxes(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], images: ImageBatch, test: RoITest
    ) -> tuple[list[Detections], MaskBranch]:
        semantic = None if self.semantic_head is None else self.semantic_head(features)[1]
        context = self.glbctx_head(features)[1]

        def boxes_forward(stage: int, rois: Tensor) -> tuple[Tensor, Tensor]:
            shared = self.box_features(stage, features, semantic, context, rois)
            return self.bbox_head[stage].outputs(shared)

        def masks(found: Sequence[Detections]) -> RegionMasks:
            rois = detected_rois(found, images)
            relayed = self.box_features(len(self.bbox_head) - 1, features, semantic, context, rois)
            return RegionMasks(self.masks_forward(features, semantic, context, rois, relayed).sigmoid())

        return cascade_detections(boxes_forward, self.bbox_head, proposals, images, test), masks


def scnet(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    semantic: int | None = COCO_STUFF_CLASSES,
) -> TwoStageDetector:
    """SCNet on a backbone with four stages.

    semantic: number of classes of the semantic branch; none leaves the branch out, for datasets without class maps.
    """
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=FPN(body.out_channels),
        rpn_head=first_stage(),
        roi_head=SCNetRoIHead(
            bbox_roi_extractor=[roi_align_extractor(7) for _ in range(STAGES)],
            bbox_head=box_heads(num_classes),
            mask_roi_extractor=roi_align_extractor(14),
            mask_head=SCNetMaskHead(num_classes=num_classes),
            semantic_head=None
            if semantic is None
            else FusedSemanticHead(num_classes=semantic, convs=residual_pairs(2)),
            glbctx_head=GlobalContextHead(num_classes=num_classes),
            feat_relay_head=FeatureRelayHead(),
        ),
        test=RoITest(score_threshold=0.001),
    )
