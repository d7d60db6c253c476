"""Mask Scoring R-CNN: Huang et al., "Mask Scoring R-CNN". Mask R-CNN with a head that predicts how well each mask
overlaps its object; at test time this times the class score is the mask's score.

Shape letters: R regions, Q positive ones, C channels, S region size, M mask size (2 S), K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..detectors.two_stage import TwoStageDetector
from ..layers.init import init_kaiming, init_normal, init_xavier
from ..layers.linear import fc_layers
from ..roi.box_head import BoxHead
from ..roi.mask_head import FCNMaskHead, mask_targets
from ..roi.masks import RegionMasks, own_class
from ..roi.rois import Assign, SampledRegions, to_rois
from ..roi.standard import StandardRoIHead
from ..samplers import Sampler
from ..structures import Targets
from .mask_rcnn import mask_rcnn

EPS = 1e-7


class MaskIoUHead(nn.Module):
    """Region features and the mask of one class to the IoU of each class: (R, C, S, S) and (R, M, M) to (R, K)."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 256,
        channels: int = 256,
        roi_size: int = 14,
        convs: int = 4,
        fcs: int = 2,
        fc_channels: int = 1024,
        loss_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.convs = nn.ModuleList(
            nn.Conv2d(
                in_channels + 1 if index == 0 else channels,
                channels,
                3,
                stride=2 if index == convs - 1 else 1,
                padding=1,
            )
            for index in range(convs)
        )
        width = channels * (roi_size // 2) ** 2
        self.fcs = fc_layers(width, fc_channels, fcs)
        self.fc_mask_iou = nn.Linear(fc_channels, num_classes)
        init_kaiming(self.convs)
        init_xavier(self.fcs)
        init_normal(self.fc_mask_iou)

    def forward(self, x: Tensor, mask_logits: Tensor) -> Tensor:
        mask = F.max_pool2d(mask_logits.sigmoid()[:, None].to(x.dtype), 2)
        x = torch.cat((x, mask), dim=1)
        for conv in self.convs:
            x = conv(x).relu()
        x = x.flatten(1)
        for fc in self.fcs:
            x = fc(x).relu()
        return self.fc_mask_iou(x).float()

    def loss(self, overlaps: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Squared error of the (Q,) overlaps of the positives' own class, averaged over those that overlap at all."""
        some = wanted > 0
        count = some.sum().clamp(min=1)
        return {"loss_mask_iou": self.loss_weight * ((overlaps - wanted)[some] ** 2).sum() / count}


def visible_shares(regions: Sequence[SampledRegions], targets: Sequence[Targets]) -> Tensor:
    """(Q,) share of each positive's ground truth mask that lies inside its box, cut to whole pixels."""
    shares = []
    for region, target in zip(regions, targets, strict=True):
        if target.masks is None:
            raise ValueError("Targets.masks: this detector learns masks, but the targets have none")
        areas = target.masks.flatten(1).sum(dim=1).float()
        height, width = target.masks.shape[1:]
        for box, matched in zip(region.positive_boxes.int().tolist(), region.matched.tolist()):
            left, top = min(max(box[0], 0), width), min(max(box[1], 0), height)
            right, bottom = max(min(box[2], width), left + 1), max(min(box[3], height), top + 1)
            inside = target.masks[matched, top:bottom, left:right].sum().float()
            shares.append(inside / (areas[matched] + EPS))
    return torch.stack(shares) if shares else regions[0].boxes.new_zeros(0)


@torch.no_grad()
def mask_overlaps(logits: Tensor, regions: Sequence[SampledRegions], targets: Sequence[Targets]) -> Tensor:
    """(Q,) IoU of each positive's mask, from (Q, M, M) logits of its class, with the whole mask of its ground truth.

    Section 3.3. A pixel belongs to the mask where its logit is above 0.5, as the published models were trained.
    """
    wanted = mask_targets(regions, targets, int(logits.shape[-1]))
    mask = (logits > 0.5).float()
    whole = wanted.sum(dim=(1, 2)) / (visible_shares(regions, targets) + EPS)
    both = (mask * wanted).sum(dim=(1, 2))
    return both / (mask.sum(dim=(1, 2)) + whole - both)


class MaskScoringRoIHead(StandardRoIHead):
    """Boxes, masks, and the overlap of each mask with its object."""

    mask_roi_extractor: nn.Module
    mask_head: FCNMaskHead

    def __init__(
        self,
        *,
        bbox_roi_extractor: nn.Module,
        bbox_head: BoxHead,
        mask_roi_extractor: nn.Module,
        mask_head: FCNMaskHead,
        mask_iou_head: MaskIoUHead,
        assigner: Assign | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(
            bbox_roi_extractor=bbox_roi_extractor,
            bbox_head=bbox_head,
            mask_roi_extractor=mask_roi_extractor,
            mask_head=mask_head,
            assigner=assigner,
            sampler=sampler,
        )
        self.mask_iou_head = mask_iou_head

    def masks_and_overlaps(self, features: Sequence[Tensor], rois: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(R, 5) regions with (R,) labels to (R, K, M, M) mask logits and the (R,) overlap of the label's mask."""
        x = self.mask_roi_extractor(features, rois)
        masks = self.mask_head(x)
        return masks, own_class(self.mask_iou_head(x, own_class(masks, labels)), labels)

    def mask_losses(
        self, features: Sequence[Tensor], regions: Sequence[SampledRegions], targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        labels = torch.cat([r.labels for r in regions])
        masks, overlaps = self.masks_and_overlaps(features, to_rois([r.positive_boxes for r in regions]), labels)
        wanted = mask_overlaps(own_class(masks, labels), regions, targets)
        return {**self.mask_head.loss(masks, regions, targets), **self.mask_iou_head.loss(overlaps, wanted)}

    def region_masks(self, features: Sequence[Tensor], rois: Tensor, labels: Tensor) -> RegionMasks:
        masks, overlaps = self.masks_and_overlaps(features, rois, labels)
        return RegionMasks(masks.sigmoid(), overlaps)


def ms_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Mask Scoring R-CNN on a backbone with four stages."""
    roi_head = partial(MaskScoringRoIHead, mask_iou_head=MaskIoUHead(num_classes=num_classes))
    return mask_rcnn(num_classes, backbone=backbone, roi_head=roi_head)
