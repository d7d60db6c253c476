"""GFL: Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
Detection".

ATSS without centerness: the classification score itself is trained to be the overlap of its box (quality focal loss),
and each side of a box is predicted as a distribution over distances, whose mean is taken (distribution focal loss).

Shape letters: B images, L levels, H x W locations of a level, P points of all levels, K classes, N positives,
R the greatest distance of a distribution in strides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.overlaps import elementwise_iou
from ..assigners import ATSSAssigner
from ..backbones.resnet import ResNet
from ..coders import DistanceCoder
from ..dense.anchor_targets import batch_objects
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.points import level_points, per_point
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..distributed import mean_count, reduce_mean
from ..layers import Scale
from ..layers.init import bias_for_prior, init_normal
from ..losses import GIoULoss
from ..losses.iou import OverlapLoss
from ..losses.reduce import weighted_sum
from ..priors import AnchorGrid
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets
from .atss import output_pyramid, square_anchors


def quality_focal_loss(logits: Tensor, labels: Tensor, quality: Tensor, normalizer: Tensor) -> Tensor:
    """Binary cross-entropy of (N, K) logits with a soft target, scaled by the squared distance to it (eq. 2).

    labels: (N,) in 0..K, K for background. quality: (N,) target of the labelled class; that of all others is 0.
    """
    target = torch.zeros_like(logits)
    positive = (labels < logits.shape[1]).nonzero()[:, 0]
    target[positive, labels[positive]] = quality[positive]
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return weighted_sum(loss * (logits.sigmoid() - target).abs() ** 2, None, normalizer)


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of (N, R + 1) logits with the two whole numbers around (N,) targets, by nearness (eq. 6): (N,)."""
    low = targets.long()
    above = targets - low
    return F.cross_entropy(logits, low, reduction="none") * (1 - above) + (
        F.cross_entropy(logits, low + 1, reduction="none") * above
    )


class Integral(nn.Module):
    """The mean of a distribution over the distances 0..R (eq. 4): (..., 4 (R + 1)) logits to (..., 4)."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.project: Tensor
        self.register_buffer("project", torch.linspace(0, longest, longest + 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x.unflatten(-1, (4, len(self.project))).softmax(dim=-1) * self.project).sum(dim=-1)


@dataclass(frozen=True)
class SideTargets:
    """What the (N,) positive points of a batch are trained on.

    labels: (B, P) in 0..K. positive: (B, P) bool. points: (N, 2) and boxes: (N, 4), in strides. count: the normalizer
    of the classification.
    """

    labels: Tensor
    positive: Tensor
    points: Tensor
    boxes: Tensor
    count: Tensor


class GFLHead(DenseHead):
    """Classification and regression towers; outputs are (logits, sides) of each level.

    logits: (B, K, H, W), by sigmoid. sides: (B, 4 (R + 1), H, W), logits of the distances to the left, top, right and
    bottom side, in strides. towers: builds each of the two. longest: R. side_weight: of the distribution focal loss.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower | None = None,
        anchors: AnchorGrid | None = None,
        assigner: ATSSAssigner | None = None,
        box_loss: OverlapLoss | None = None,
        side_weight: float = 0.25,
        longest: int = 16,
    ) -> None:
        super().__init__()
        self.num_classes, self.longest = num_classes, longest
        towers = towers or Tower()
        self.anchors, self.assigner = anchors or square_anchors(), assigner or ATSSAssigner()
        self.coder, self.box_loss, self.side_weight = DistanceCoder(), box_loss or GIoULoss(weight=2.0), side_weight
        self.cls_convs = towers()
        self.reg_convs = towers()
        self.gfl_cls = nn.Conv2d(towers.channels, num_classes, 3, padding=1)
        self.gfl_reg = nn.Conv2d(towers.channels, 4 * (longest + 1), 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in self.anchors.square_strides)
        self.integral = Integral(longest)
        init_normal(self)
        nn.init.constant_(self.gfl_cls.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return (
            [self.gfl_cls(self.cls_convs(x)) for x in features],
            [scale(self.gfl_reg(self.reg_convs(x))).float() for x, scale in zip(features, self.scales, strict=True)],
        )

    def side_targets(self, sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]) -> SideTargets:
        """Targets on levels of (H, W)."""
        device = targets[0].boxes.device
        levels = self.anchors(sizes, device)
        labels, boxes = batch_objects(
            [self.assigner(levels, target.boxes) for target in targets], targets, self.num_classes
        )
        positive = labels < self.num_classes
        stride = per_point(self.anchors.square_strides, levels)
        points = torch.cat(level_points(sizes, self.anchors.square_strides, device, offset=0)) / stride[:, None]
        return SideTargets(
            labels=labels,
            positive=positive,
            points=points.expand(len(targets), -1, -1)[positive],
            boxes=(boxes / stride[:, None])[positive],
            count=mean_count(positive.sum(dim=1).clamp(min=1).sum(), device),
        )

    def confidence(self, logits: list[Tensor], wanted: SideTargets) -> Tensor:
        """(N,) the best score of each positive point, by which its regression losses count."""
        return all_by_prior(logits, self.num_classes)[wanted.positive].detach().sigmoid().amax(dim=1)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        return self.losses_with(outputs, self.side_targets(feature_sizes(outputs[0]), targets))

    def losses_with(self, outputs: tuple[list[Tensor], ...], wanted: SideTargets) -> dict[str, Tensor]:
        """Loss terms of given targets."""
        logits, sides = outputs
        pred = all_by_prior(sides, 4 * (self.longest + 1))[wanted.positive]
        boxes = self.coder.decode(wanted.points, self.integral(pred))
        quality = logits[0].new_zeros(wanted.labels.shape)
        quality[wanted.positive] = elementwise_iou(boxes.detach(), wanted.boxes)
        loss_cls = quality_focal_loss(
            all_by_prior(logits, self.num_classes).flatten(0, 1),
            wanted.labels.flatten(),
            quality.flatten(),
            wanted.count,
        )
        weight = self.confidence(logits, wanted)
        total = reduce_mean(weight.sum()).clamp(min=1)
        distances = self.coder.encode(wanted.points, wanted.boxes).clamp(0, self.longest - 0.1)
        loss_sides = distribution_focal_loss(pred.reshape(-1, self.longest + 1), distances.flatten())
        return {
            "loss_cls": loss_cls,
            "loss_bbox": self.box_loss(boxes, wanted.boxes, weight, total),
            "loss_dfl": self.side_weight * weighted_sum(loss_sides.view(-1, 4).mean(dim=1), weight, total),
        }

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, sides = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [
                self.integral(by_prior(level, 4 * (self.longest + 1))) * stride
                for level, stride in zip(sides, self.anchors.square_strides, strict=True)
            ],
            level_points(feature_sizes(logits), self.anchors.square_strides, logits[0].device, offset=0),
            self.coder.decode,
            images,
            test,
        )


def gfl(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """GFL on a backbone with four stages."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=output_pyramid(body.out_channels),
        bbox_head=GFLHead(num_classes=num_classes),
        test=DenseTest(nms_threshold=0.6),
    )
