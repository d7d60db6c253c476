"""AutoAssign: Zhu et al., "AutoAssign: Differentiable Label Assignment for Dense Object Detection".

An FCOS whose points all learn from every object around them, as positives and as negatives, weighed by how well they
predict it and by a learnt prior of where in an object its class is best seen from.

Shape letters: B images, P points of all levels, K classes, N objects of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.overlaps import pairwise_iou
from ..backbones.resnet import ResNet
from ..boxes import box_centres
from ..dense.head import all_by_prior, by_prior, feature_sizes
from ..dense.points import level_points, per_point
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..distributed import mean_count, reduce_mean
from ..layers.init import bias_for_prior
from ..necks.fpn import FPN
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets
from .fcos import STRIDES, FCOSHead

EPS = 1e-12
BOX_WEIGHT = 5.0
CONFIDENCE_SCALE = 3.0
TOWER = Tower(bias=True)


class CenterPrior(nn.Module):
    """A Gaussian around each object's centre, in strides, whose centre and width are learnt for each class
    (section 3.2, eq. 2)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes, 2))
        self.sigma = nn.Parameter(torch.ones(num_classes, 2))

    def forward(self, points: Tensor, strides: Tensor, target: Targets, inside: Tensor) -> Tensor:
        """(P, 2) points, (P,) strides and (P, N) whether a point lies in an object to (P, N) weights."""
        offset = (points[:, None] - box_centres(target.boxes)[None]) / strides[:, None, None]
        distance = (offset - self.mean[target.labels]) ** 2
        weight = (-distance / (2 * self.sigma[target.labels] ** 2)).exp().prod(dim=2)
        return weight * inside


class AutoAssignHead(FCOSHead):
    """FCOS towers with a learnt center prior; outputs as of ``FCOSHead``, with objectness for centerness."""

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower = TOWER,
        strides: Sequence[int] = STRIDES,
        box_weight: float = BOX_WEIGHT,
        positive_weight: float = 0.25,
        negative_weight: float = 0.75,
        prior_weight: float = 0.75,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            channels=towers.channels,
            build_tower=towers,
            normalized=True,
            centerness_on_reg=True,
            strides=strides,
            ranges=(),
        )
        self.box_weight, self.prior_weight = box_weight, prior_weight
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.center_prior = CenterPrior(num_classes)
        nn.init.constant_(self.conv_cls.bias, bias_for_prior(0.02))  # type: ignore[arg-type]
        nn.init.constant_(self.conv_reg.bias, 4.0)  # type: ignore[arg-type]

    def points(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """(P, 2) points of each level, on the upper left corners of the cells."""
        return level_points(feature_sizes(maps), self.strides, maps[0].device, offset=0.0)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        levels = self.points(outputs[0])
        points, strides = torch.cat(levels), per_point(self.strides, levels)
        scores = all_by_prior(outputs[0], self.num_classes).sigmoid()
        distances, objectness = all_by_prior(outputs[1], 4), all_by_prior(outputs[2], 1).sigmoid()
        zero = sum(kind.sum() * 0 for kind in (scores, distances, objectness, self.center_prior.mean))
        positive, negative, prior = zero + self.center_prior.sigma.sum() * 0, zero, []
        prior_total = scores.new_zeros(())
        for index, target in enumerate(targets):
            sides = torch.cat(
                (points[:, None] - target.boxes[None, :, :2], target.boxes[None, :, 2:] - points[:, None]), dim=2
            )
            inside = (sides > 0).all(dim=2)
            weights = self.center_prior(points, strides, target, inside)
            joint = scores[index] * objectness[index]
            boxes = self.coder.decode(points, distances[index])
            positive = positive + self.positive_loss(joint, boxes, target, weights)
            negative = negative + self.negative_loss(joint, boxes.detach(), target, inside)
            total = weights.sum()
            prior.append(len(target) / total.clamp(min=EPS) if bool(inside.any()) else total * 0)
            prior_total = prior_total + total.detach()
        objects = sum(len(target) for target in targets)
        return {
            "loss_pos": positive / mean_count(objects, points.device),
            "loss_neg": negative / reduce_mean(prior_total).clamp(min=1.0),
            "loss_center": torch.stack(prior).mean() * self.prior_weight,
        }

    def positive_loss(self, joint: Tensor, boxes: Tensor, target: Targets, weights: Tensor) -> Tensor:
        """Each object's confidence, averaged over its points by confidence and prior (section 3.3, eqs. 5, 6).

        joint: (P, K) class times objectness scores. boxes: (P, 4). weights: (P, N) center prior.
        """
        if not len(target):
            return joint.sum() * 0
        located = (-self.box_weight * (1 - pairwise_iou(boxes, target.boxes, kind="giou"))).exp()
        confidence = joint[:, target.labels] * located
        weight = (confidence * CONFIDENCE_SCALE).exp() * weights
        weight = weight / weight.sum(dim=0, keepdim=True).clamp(min=EPS)
        # Rounding may take the mean of perfect predictions beyond one.
        mean = (confidence * weight).sum(dim=0).clamp(max=1)
        return self.positive_weight * F.binary_cross_entropy(mean, torch.ones_like(mean), reduction="sum")

    def negative_loss(self, joint: Tensor, boxes: Tensor, target: Targets, inside: Tensor) -> Tensor:
        """Focal loss against background, lowered at an object's points by how well they locate it (section 3.3).

        joint: (P, K) scores. boxes: (P, 4) without gradient. inside: (P, N).
        """
        weight = torch.ones_like(joint)
        if len(target):
            overlap = pairwise_iou(boxes, target.boxes).amax(dim=1)
            for label, own in zip(target.labels.tolist(), inside.t(), strict=True):
                if bool(own.any()):
                    gain = 1 / (1 - overlap[own]).clamp(min=EPS)
                    low, high = gain.min(), gain.max()
                    weight[own, label] = 1 - (gain - low + EPS) / (high - low + EPS)
        logits = joint * weight
        loss = logits**2 * F.binary_cross_entropy(logits, torch.zeros_like(logits), reduction="none")
        return self.negative_weight * loss.sum()

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, distances, objectness = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [by_prior(level, 4) for level in distances],
            self.points(logits),
            self.coder.decode,
            images,
            test,
            [by_prior(level, 1)[..., 0].sigmoid() for level in objectness],
        )


def autoassign(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """AutoAssign on a backbone with four stages."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, start=1, extra="input", relu_before_extra=True),
        bbox_head=AutoAssignHead(num_classes=num_classes),
        test=DenseTest(nms_threshold=0.6),
    )
