"""PISA: Cao et al., "Prime Sample Attention in Object Detection".

Faster R-CNN, Mask R-CNN, RetinaNet and SSD whose losses weigh examples by how much they matter to the detections:
positives by how well they overlap their object among its others (ISR-P), negatives by their score among their
neighbours (ISR-N), and the box loss by the score (CARL).

Shape letters: B images, P anchors or proposals of one image, R regions of all images, Q positives of all images,
N negatives of one image, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.overlaps import elementwise_iou
from ..backbones.resnet import ResNet
from ..coders import BoxCoder
from ..dense.anchor_targets import AnchorTargets
from ..dense.head import all_by_prior, feature_sizes
from ..detectors.single_stage import SingleStageDetector
from ..detectors.two_stage import TwoStageDetector
from ..losses import FocalLoss, SmoothL1Loss
from ..losses.importance import classification_aware, kept_sum, negative_importance, positive_importance
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead, by_class, region_labels
from ..roi.rois import SampledRegions, assign_regions, image_rois, to_rois
from ..roi.standard import StandardRoIHead
from ..samplers import random_choice
from ..settings import DenseTest, ProposalSettings
from ..structures import ImageBatch, Targets
from .faster_rcnn import faster_rcnn
from .mask_rcnn import mask_rcnn
from .retinanet import RetinaHead
from .rpn import RPNHead
from .ssd import SSD300, Layout, SSDHead, hard_negative_loss, ssd


@dataclass(frozen=True)
class ScoreHLRSampler:
    """Chooses the negatives of the highest hierarchical local rank by score, and weighs them (section 4.1).

    Negatives whose best score is at most ``score_threshold`` have no rank and fill up what is missing at random;
    ``group_overlap``: from which overlap on negatives are ranked together. power and bias: of the map from ranks to
    weights.
    """

    score_threshold: float = 0.05
    group_overlap: float = 0.5
    power: float = 0.5
    bias: float = 0.0

    def __call__(self, scores: Tensor, boxes: Tensor, losses: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Indices of ``count`` negatives and their weights, from what is predicted of all of them: (N,) best scores of
        a class, (N, 4) boxes and (N,) classification losses."""
        ranked = (scores > self.score_threshold).nonzero()[:, 0]
        unranked = (scores <= self.score_threshold).nonzero()[:, 0]
        if len(ranked) == 0 or count == 0:
            return random_choice(unranked, count), scores.new_ones(count)
        importance = negative_importance(scores[ranked], boxes[ranked], self.group_overlap)
        best = importance.argsort(descending=True)[:count]
        total = max(count, len(ranked))
        weights = (total - torch.arange(len(best), device=best.device)) / total
        others = random_choice(unranked, count - len(best))
        index = torch.cat((ranked[best], others))
        weights = torch.cat((weights, weights[-1:].expand(len(others))))
        return index, kept_sum((self.bias + (1 - self.bias) * weights) ** self.power, losses[index])


class PISARoIHead(StandardRoIHead):
    """The second stage whose losses weigh regions by their importance; its sampler draws the positives and says how
    many negatives there are, not which."""

    bbox_head: BoxHead
    rank_negatives = ScoreHLRSampler()

    @torch.no_grad()
    def sample_weighted(
        self, features: Sequence[Tensor], image: int, proposals: Tensor, target: Targets
    ) -> tuple[SampledRegions, Tensor]:
        """The regions of one image that are trained on, and the weights of its negatives."""
        candidates = assign_regions(proposals, target, self.assigner, add_ground_truth=True)
        positive, drawn = self.sampler(candidates.assignment)
        negative = candidates.assignment.negative.nonzero()[:, 0]
        boxes = candidates.boxes[negative]
        logits, codes = self.boxes_forward(features, image_rois(boxes, image))
        scores, labels = self.bbox_head.scores(logits).max(dim=1)
        losses = F.cross_entropy(logits, torch.full_like(labels, self.num_classes), reduction="none")
        refined = self.bbox_head.refine(boxes, labels, codes)
        chosen, weights = self.rank_negatives(scores, refined, losses, len(drawn))
        return candidates.take(positive, negative[chosen], target), weights

    def loss(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        images: ImageBatch,
        targets: Sequence[Targets],
    ) -> dict[str, Tensor]:
        regions, negative_weights = [], []
        for image, (own, target) in enumerate(zip(proposals, targets, strict=True)):
            region, weight = self.sample_weighted(features, image, own, target)
            regions.append(region)
            negative_weights.append(weight)
        logits, codes = self.boxes_forward(features, to_rois([r.boxes for r in regions]))
        labels = region_labels(regions, self.num_classes)
        positive = labels < self.num_classes
        own_labels, own_logits = labels[positive], logits[positive]
        boxes = torch.cat([r.positive_boxes for r in regions])
        objects = torch.cat([r.matched_boxes for r in regions])
        pred = by_class(codes[positive], own_labels)
        weights = logits.new_ones(len(labels))
        weights[~positive] = torch.cat(negative_weights)
        with torch.no_grad():
            weights[positive] = positive_importance(
                elementwise_iou(self.bbox_head.coder.decode(boxes, pred), objects),
                numbered([r.matched for r in regions], targets),
                own_labels,
                F.cross_entropy(own_logits, own_labels, reduction="none"),
            )
        losses = self.bbox_head.loss(logits, codes, regions, weights)
        each = SmoothL1Loss().each(pred, self.bbox_head.coder.encode(boxes, objects))
        scores = own_logits.softmax(dim=1).gather(1, own_labels[:, None])[:, 0]
        losses["loss_carl"] = classification_aware(each, scores) / max(len(labels), 1)
        if self.mask_head is not None:
            losses.update(self.mask_losses(features, regions, targets))
        return losses


def numbered(matched: Sequence[Tensor], targets: Sequence[Targets]) -> Tensor:
    """(Q,) indices of the objects of each image to numbers that differ between the images of the batch."""
    parts, start = [], 0
    for own, target in zip(matched, targets, strict=True):
        parts.append(own + start)
        start += len(target)
    return torch.cat(parts)


def prime_anchors(
    coder: BoxCoder,
    box_loss: SmoothL1Loss,
    anchors: Tensor,
    wanted: AnchorTargets,
    codes: Tensor,
    class_losses: Tensor,
    scores: Tensor,
    targets: Sequence[Targets],
) -> tuple[Tensor, Tensor]:
    """(B, P) classification weights, positives by their importance, and the sum of the classification-aware box losses.

    anchors: (P, 4). codes: (B, P, 4). class_losses and scores: (Q,) of the positives, the scores those of their class.
    """
    positive = wanted.positive
    pred, goal = codes[positive], wanted.codes[positive]
    weights = wanted.label_weights.clone()
    with torch.no_grad():
        priors = anchors.expand(len(codes), -1, -1)[positive]
        weights[positive] = positive_importance(
            elementwise_iou(coder.decode(priors, pred), coder.decode(priors, goal)),
            numbered([own[mask] for own, mask in zip(wanted.matched, positive, strict=True)], targets),
            wanted.labels[positive],
            class_losses,
        )
    return weights, classification_aware(box_loss.each(pred, goal), scores)


class PISARetinaHead(RetinaHead):
    """RetinaNet's head whose losses weigh positives by their importance."""

    loss_cls: FocalLoss
    loss_bbox: SmoothL1Loss

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        anchors, wanted = self.anchor_targets(feature_sizes(outputs[0]), images, targets)
        logits, codes = all_by_prior(outputs[0], self.num_classes), all_by_prior(outputs[1], 4)
        own_logits, own_labels = logits[wanted.positive], wanted.labels[wanted.positive]
        scores = own_logits.sigmoid().gather(1, own_labels[:, None])[:, 0]
        own_losses = self.loss_cls.each(own_logits, own_labels).sum(dim=1)
        weights, carl = prime_anchors(self.coder, self.loss_bbox, anchors, wanted, codes, own_losses, scores, targets)
        return {
            "loss_cls": self.loss_cls(
                logits.flatten(0, 1), wanted.labels.flatten(), weights.flatten(), wanted.positives
            ),
            "loss_bbox": self.loss_bbox(codes[wanted.positive], wanted.codes[wanted.positive], None, wanted.positives),
            "loss_carl": carl / wanted.positives,
        }


class PISASSDHead(SSDHead):
    """SSD's head whose losses weigh positives by their importance."""

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes = all_by_prior(outputs[0], self.num_classes + 1), all_by_prior(outputs[1], 4)
        anchors, wanted = self.targets(outputs, images, targets)
        own_logits, own_labels = logits[wanted.positive], wanted.labels[wanted.positive]
        scores = own_logits.softmax(dim=1).gather(1, own_labels[:, None])[:, 0]
        each = F.cross_entropy(logits.flatten(0, 1), wanted.labels.flatten(), reduction="none")
        each = each.view_as(wanted.labels)
        weights, carl = prime_anchors(
            self.coder, self.loss_bbox, anchors, wanted, codes, each[wanted.positive].detach(), scores, targets
        )
        loss_cls = hard_negative_loss(each * weights, wanted, self.negative_ratio)
        loss_bbox = self.loss_bbox(codes[wanted.positive], wanted.codes[wanted.positive], None, wanted.positives)
        return {"loss_cls": loss_cls / wanted.positives, "loss_bbox": loss_bbox, "loss_carl": carl / wanted.positives}


first_stage = partial(
    RPNHead,
    training=ProposalSettings(candidates_per_level=2000, max_per_image=2000),
    testing=ProposalSettings(candidates_per_level=2000, max_per_image=2000),
)
bbox_head = partial(BoxHead, box_loss=SmoothL1Loss())


def pisa_faster_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """PISA Faster R-CNN on a backbone with four stages."""
    return faster_rcnn(
        num_classes,
        backbone=backbone,
        rpn_head=first_stage,
        bbox_head=bbox_head,
        roi_head=PISARoIHead,
    )


def pisa_mask_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """PISA Mask R-CNN on a backbone with four stages."""
    return mask_rcnn(
        num_classes,
        backbone=backbone,
        rpn_head=first_stage,
        bbox_head=bbox_head,
        roi_head=PISARoIHead,
    )


def pisa_retinanet(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """PISA RetinaNet on a backbone with four stages."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, start=1, extra="input"),
        bbox_head=PISARetinaHead(num_classes=num_classes, box_loss=SmoothL1Loss(beta=0.11)),
        test=DenseTest(),
    )


def pisa_ssd(num_classes: int, *, backbone: Callable[[], nn.Module], layout: Layout = SSD300) -> SingleStageDetector:
    """PISA SSD on a backbone with two outputs; ``layout`` is that of the input size."""
    return ssd(num_classes, backbone=backbone, layout=layout, head=PISASSDHead)
