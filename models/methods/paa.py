"""PAA: Kim and Lee, "Probabilistic Anchor Assignment with IoU Prediction for Object Detection".

ATSS's network, whose third output predicts the IoU of the box. Which candidates of an object are positive is found
from the network's own losses on them: two Gaussians are fitted, and those of the lower one count.

Shape letters: B images, L levels, P anchors of all levels, K classes, N objects of an image, M candidates of an object,
D detections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...ops.overlaps import elementwise_iou
from ..assigners import BACKGROUND, Assignment, MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..boxes import to_output_frame
from ..dense.anchor_targets import batch_objects
from ..dense.head import all_by_prior, by_prior, feature_sizes
from ..dense.open_sizes import NOT_THERE, best, open_region_detections, take
from ..dense.points import per_point
from ..dense.postprocess import multiclass_nms
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..losses import GIoULoss, soft_binary_cross_entropy
from ..losses.iou import OverlapLoss
from ..priors import AnchorGrid
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, OpenBatch, Targets
from .atss import ATSSHead, output_pyramid

VOTE_OVERLAP, VOTE_WIDTH = 0.01, 0.025
"""Least overlap of a candidate that votes on a box, and how fast its weight falls with the overlap."""


@dataclass
class PAATest(DenseTest):
    """``candidates_per_level`` counts locations, by their best class. score_voting: whether boxes are voted on."""

    score_voting: bool = True


def ordered_in_groups(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Indices that sort by group and inside it by value, and the place of each of them in its group."""
    order = values.argsort()
    order = order[groups[order].argsort(stable=True)]
    ordered = groups[order]
    return order, torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)


def fit_two_gaussians(
    values: Tensor, valid: Tensor, steps: int = 100, tolerance: float = 1e-3, least_variance: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Fit a mixture of two Gaussians to each row by expectation maximization (section 3.2).

    The means start at the least and the greatest value, the variances at 1. A row is done when its mean
    log-likelihood changes by less than ``tolerance``.

    values: (N, M). valid: (N, M), at least one true in each row.
    Returns: (N, M) whether a value belongs to the first Gaussian, and (N, M) its log-likelihood.
    """
    x, mask = values.double()[:, None], valid.double()[:, None]
    count = mask.sum(dim=2)
    low = values.masked_fill(~valid, float("inf")).amin(dim=1)
    high = values.masked_fill(~valid, float("-inf")).amax(dim=1)
    mean = torch.stack((low, high), dim=1).double()
    variance, share = torch.ones_like(mean), torch.full_like(mean, 0.5)
    before = torch.full_like(count, float("-inf"))
    active = torch.ones_like(count, dtype=torch.bool)

    def log_probability() -> Tensor:
        spread = (x - mean[..., None]) ** 2 / variance[..., None] + (2 * math.pi * variance[..., None]).log()
        return share[..., None].log() - spread / 2

    for _ in range(steps):
        each = log_probability()
        total = each.logsumexp(dim=1, keepdim=True)
        likelihood = (total * mask).sum(dim=2) / count
        belongs = (each - total).exp() * mask
        weight = belongs.sum(dim=2) + 10 * torch.finfo(x.dtype).eps
        centre = (belongs * x).sum(dim=2) / weight
        spread = (belongs * (x - centre[..., None]) ** 2).sum(dim=2) / weight + least_variance
        mean, variance = torch.where(active, centre, mean), torch.where(active, spread, variance)
        share = torch.where(active, weight / count, share)
        active = active & ((likelihood - before).abs() >= tolerance)
        before = likelihood
        if not active.any():
            break
    each = log_probability()
    return (each[:, 0] >= each[:, 1]) & valid, each.logsumexp(dim=1)


def likely_positives(losses: Tensor, objects: Tensor, levels: Tensor, count: int, per_level: int = 9) -> Tensor:
    """Which candidates are positive, (C,) bool (algorithm 1).

    Of each object and level the ``per_level`` candidates of least loss take part. Of those that belong to the lower
    of the object's two Gaussians, the ones up to the most likely loss are positive.

    losses, objects, levels: (C,) of each candidate. count: N. An object with fewer than two candidates gets none.
    """
    positive = torch.zeros_like(objects, dtype=torch.bool)
    order, place = ordered_in_groups(losses, objects * (levels.max() + 1) + levels)
    chosen = order[place < per_level]
    order, place = ordered_in_groups(losses[chosen], objects[chosen])
    chosen = chosen[order]
    table = chosen.new_full((count, int(place.max()) + 1), -1)
    table[objects[chosen], place] = chosen
    table = table[(table >= 0).sum(dim=1) >= 2]
    if len(table) == 0:
        return positive
    valid = table >= 0
    lower, likelihood = fit_two_gaussians(losses[table], valid)
    most_likely = likelihood.masked_fill(~lower, float("-inf")).argmax(dim=1, keepdim=True)
    kept = lower & (torch.arange(table.shape[1], device=table.device) <= most_likely)
    positive[table[kept]] = True
    return positive


def vote(found: Detections, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """(D, 4) boxes of the detections, each the mean of the candidates of its class that overlap it (section 3.4).

    A candidate's weight is its score times ``exp(-(1 - IoU)**2 / VOTE_WIDTH)``.

    boxes: (C, 4), scores: (C,) and labels: (C,) of the candidates before suppression.
    """
    order = labels.argsort()
    ordered = labels[order]
    start, end = (torch.searchsorted(ordered, found.labels, right=right) for right in (False, True))
    pairs = end - start
    detection = torch.arange(len(found), device=boxes.device).repeat_interleave(pairs)
    place = torch.arange(len(detection), device=boxes.device) - (pairs.cumsum(0) - pairs)[detection]
    candidate = order[start[detection] + place]
    overlap = elementwise_iou(found.boxes[detection], boxes[candidate])
    weight = (-((1 - overlap) ** 2) / VOTE_WIDTH).exp() * scores[candidate] * (overlap > VOTE_OVERLAP)
    total = weight.new_zeros(len(found), 1).index_add(0, detection, weight[:, None])
    voted = torch.zeros_like(found.boxes).index_add(0, detection, weight[:, None] * boxes[candidate])
    return torch.where(total > 0, voted / total, found.boxes)


class PAAHead(ATSSHead):
    """ATSS's head with probabilistic assignment; its third output is the IoU of the box, by sigmoid.

    candidates: which anchors take part. per_level: of each object and level so many. parts: further arguments of
    ``ATSSHead``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower | None = None,
        anchors: AnchorGrid | None = None,
        box_loss: OverlapLoss | None = None,
        centerness_weight: float = 0.5,
        candidates: MaxIoUAssigner | None = None,
        per_level: int = 9,
        **parts: Any,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            towers=towers,
            anchors=anchors,
            box_loss=box_loss or GIoULoss(weight=1.3),
            centerness_weight=centerness_weight,
            **parts,
        )
        self.candidates, self.per_level = candidates or MaxIoUAssigner(positive=0.1, negative=0.1), per_level

    @torch.no_grad()
    def assign(self, logits: Tensor, codes: Tensor, levels: Sequence[Tensor], target: Targets) -> Assignment:
        """Assignment of the anchors of one image from (P, K) logits and (P, 4) codes."""
        anchors = torch.cat(list(levels))
        first = self.candidates(anchors, target.boxes)
        candidate = first.positive.nonzero()[:, 0]
        if len(candidate) == 0:
            return first
        objects = first.matched[candidate]
        losses = self.class_loss.each(logits[candidate], target.labels[objects]).sum(dim=1) + self.box_loss.each(
            self.coder.decode(anchors[candidate], codes[candidate]), target.boxes[objects]
        )
        level = per_point(range(len(levels)), levels).long()[candidate]
        rejected = candidate[~likely_positives(losses, objects, level, len(target), self.per_level)]
        return Assignment(first.matched.index_fill(0, rejected, BACKGROUND), first.overlaps)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        levels = self.anchors(feature_sizes(outputs[0]), outputs[0][0].device)
        logits, codes, overlaps = (
            all_by_prior(kind, channels) for kind, channels in zip(outputs, (self.num_classes, 4, 1), strict=True)
        )
        assigned = [
            self.assign(logit, code, levels, target) for logit, code, target in zip(logits, codes, targets, strict=True)
        ]
        labels, boxes = batch_objects(assigned, targets, self.num_classes)
        positive = labels < self.num_classes
        count = positive.sum()
        wanted = boxes[positive]
        pred = self.coder.decode(torch.cat(levels).expand_as(boxes)[positive], codes[positive])
        overlap = elementwise_iou(pred.detach(), wanted)
        return {
            "loss_cls": self.class_loss(logits.flatten(0, 1), labels.flatten(), None, count.clamp(min=len(targets))),
            "loss_bbox": self.box_loss(pred, wanted, overlap.clamp(min=1e-12), overlap.sum()),
            "loss_iou": self.centerness_weight
            * soft_binary_cross_entropy(overlaps[positive][:, 0], overlap, None, count),
        }

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: PAATest) -> list[Detections]:
        logits, codes, overlaps = outputs
        anchors = self.anchors(feature_sizes(logits), logits[0].device)
        scores = [
            (by_prior(logit, self.num_classes).sigmoid() * by_prior(overlap, 1).sigmoid()).sqrt()
            for logit, overlap in zip(logits, overlaps, strict=True)
        ]
        deltas = [by_prior(level, 4) for level in codes]
        if isinstance(images, OpenBatch):
            return self.predict_open(scores, deltas, anchors, images, test)
        detections = []
        for index, size in enumerate(images.sizes):
            kept, boxes = [], []
            for level, level_anchors in enumerate(anchors):
                score = scores[level][index]
                best = score.amax(dim=1).topk(min(test.candidates_per_level, len(score))).indices
                kept.append(score[best])
                boxes.append(self.coder.decode(level_anchors[best], deltas[level][index][best], size))
            score, box = torch.cat(kept), to_output_frame(torch.cat(boxes), images, index)
            found, _ = multiclass_nms(
                box,
                score,
                score_threshold=test.score_threshold,
                nms_threshold=test.nms_threshold,
                max_per_image=test.max_per_image,
            )
            if test.score_voting:
                place, label = (score > test.score_threshold).nonzero(as_tuple=True)
                found = replace(found, boxes=vote(found, box[place], score[place, label], label))
            detections.append(found)
        return detections

    def predict_open(
        self, scores: list[Tensor], codes: list[Tensor], anchors: list[Tensor], images: OpenBatch, test: PAATest
    ) -> list[Detections]:
        """Detections of an OpenBatch from (B, P, K) scores and (B, P, 4) codes of each level."""
        kept, boxes = [], []
        limit = test.candidates_per_level
        for score, code, level in zip(scores, codes, anchors, strict=True):
            value, index = best(score.amax(dim=2), limit)
            kept.append(torch.where((value > 0)[..., None], take(score, index), NOT_THERE))
            size = images.each_size(limit)
            own = self.coder.decode(level[index.flatten()], take(code, index).flatten(0, 1), size)
            boxes.append(own.unflatten(0, (-1, limit)))
        score, box = torch.cat(kept, dim=1), torch.cat(boxes, dim=1)
        (found,) = open_region_detections(box, score, images, test)
        if not test.score_voting:
            return [found]
        score = torch.where(score > test.score_threshold, score, 0.0)
        place = found.labels.clamp(min=0)[:, None].expand(-1, score.shape[1], -1)
        voted = vote_open(found.boxes, to_output_frame(box, images, 0), score.gather(2, place).transpose(1, 2))
        return [replace(found, boxes=torch.where((found.labels >= 0)[..., None], voted, found.boxes))]


def vote_open(found: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
    """``vote`` of (B, M, 4) detections by (B, C, 4) candidates, with (B, M, C) scores for the detection's class."""
    low = torch.maximum(found[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(found[:, :, None, 2:], boxes[:, None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(one[..., 2:] - one[..., :2]).prod(dim=-1) for one in (found, boxes)]
    overlap = common / (areas[0][:, :, None] + areas[1][:, None] - common).clamp(min=1e-6)
    weight = (-((1 - overlap) ** 2) / VOTE_WIDTH).exp() * scores * (overlap > VOTE_OVERLAP)
    total = weight.sum(dim=2, keepdim=True)
    return torch.where(total > 0, weight @ boxes / total, found)


def paa(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """PAA on a backbone with four stages."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=output_pyramid(body.out_channels),
        bbox_head=PAAHead(num_classes=num_classes),
        test=PAATest(nms_threshold=0.6),
    )
