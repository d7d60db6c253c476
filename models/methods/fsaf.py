"""FSAF: Zhu et al., "Feature Selective Anchor-Free Module for Single-Shot Object Detection".

RetinaNet with one square prior at every location that predicts distances to the sides of the object around it. The
middle of an object is positive on the level on which the object's loss is least at that moment.

Shape letters: B images, L levels, P priors of all levels, K classes, N objects of the batch, C positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assigners import IGNORED, CenterRegionAssigner
from ..backbones.resnet import ResNet
from ..coders import TBLRCoder
from ..dense.anchor_targets import matched_objects
from ..dense.head import all_by_prior, feature_sizes
from ..dense.points import per_point
from ..detectors.single_stage import SingleStageDetector
from ..losses import FocalLoss, IoULoss
from ..losses.iou import OverlapLoss
from ..priors import AnchorGrid, anchor_grid
from ..structures import ImageBatch, Targets
from .retinanet import STRIDES, RetinaHead, retinanet


def best_levels(losses: Tensor, objects: Tensor, levels: Tensor, count: int, num_levels: int) -> Tensor:
    """(N,) the level on which each object's mean loss is least (eq. 3).

    losses: (C,) of each positive. objects and levels: (C,) which it belongs to.
    """
    slot = objects * num_levels + levels
    total = losses.new_zeros(count * num_levels).index_add(0, slot, losses)
    found = torch.bincount(slot, minlength=count * num_levels)
    mean = torch.where(found > 0, total / found, float("inf"))
    return mean.view(count, num_levels).argmin(dim=1)


class FSAFHead(RetinaHead):
    """A RetinaNet head that predicts distances; outputs as of ``RetinaHead``, codes not below zero.

    core: size of the region that is positive, as a share of the object. shadow: of the region around it in which the
    object's class is not trained. layers: further arguments of ``RetinaHead``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        anchors: AnchorGrid | None = None,
        coder: TBLRCoder | None = None,
        core: float = 0.2,
        shadow: float = 0.2,
        focal_loss: FocalLoss | None = None,
        iou_loss: OverlapLoss | None = None,
        **layers: Any,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            anchors=anchors or anchor_grid(STRIDES, scales=(1,), ratios=(1.0,)),
            coder=coder or TBLRCoder(),
            **layers,
        )
        self.center_assigner = CenterRegionAssigner(core=core, shadow=shadow)
        self.focal_loss, self.iou_loss = focal_loss or FocalLoss(), iou_loss or IoULoss()
        # Boxes start with an area, without which there is no gradient.
        nn.init.constant_(self.retina_reg.bias, 0.25)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, codes = super().forward(features)
        return logits, [F.relu(level) for level in codes]

    def class_weights(self, matched: Tensor, shadow: Tensor, labels: Tensor) -> Tensor:
        """(P, K) whether each class of each prior is trained, from its (P,) match and its (P, N) shadows."""
        weights = (matched != IGNORED).float()[:, None].repeat(1, self.num_classes)
        prior, cast_by = shadow.nonzero(as_tuple=True)
        weights[prior, labels[cast_by]] = 0
        return weights

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        levels = self.anchors(feature_sizes(outputs[0]), outputs[0][0].device)
        anchors = torch.cat(levels)
        logits, codes = (
            all_by_prior(kind, channels) for kind, channels in zip(outputs, (self.num_classes, 4), strict=True)
        )
        labels, boxes, weights, objects, negatives, count = [], [], [], [], 0, 0
        for target in targets:
            assignment, shadow = self.center_assigner(anchors, target.boxes, target.labels, target.ignore_boxes)
            label, box = matched_objects(assignment, target, self.num_classes)
            labels.append(label)
            boxes.append(box)
            weights.append(self.class_weights(assignment.matched, shadow, target.labels))
            objects.append(assignment.matched + count)
            negatives += int(assignment.negative.sum().clamp(min=1))
            count += len(target)
        label, weight = torch.stack(labels), torch.stack(weights)
        image, prior = (label < self.num_classes).nonzero(as_tuple=True)
        own, level = label[image, prior], per_point(range(len(levels)), levels).long()[prior]
        each_cls = self.focal_loss.each(logits.flatten(0, 1), label.flatten()).view_as(logits)
        # A prediction of no area has no overlap and no gradient.
        pred = self.coder.decode(anchors[prior], codes[image, prior].clamp(min=1e-4))
        each_bbox = self.iou_loss.each(pred, torch.stack(boxes)[image, prior])
        with torch.no_grad():
            together = (each_cls * weight)[image, prior].sum(dim=1) + each_bbox
            matched = torch.stack(objects)[image, prior]
            selected = best_levels(together, matched, level, count, len(levels))[matched] == level
            weight[image[~selected], prior[~selected], own[~selected]] = 0
            positives = selected.sum()
            normalizer = torch.where(positives > 0, positives, negatives)
        return {
            "loss_cls": (each_cls * weight).sum() / normalizer,
            "loss_bbox": (each_bbox * selected).sum() / normalizer,
        }


def fsaf(num_classes: int, *, backbone: Callable[[], ResNet], shadow: float = 0.2) -> SingleStageDetector:
    """FSAF on a backbone with four stages; ``shadow`` as of ``FSAFHead``."""
    return retinanet(num_classes, backbone=backbone, head=partial(FSAFHead, shadow=shadow))
