"""VarifocalNet: Zhang et al., "VarifocalNet: An IoU-aware Dense Object Detector".

FCOS with ATSS's assignment and no centerness. A first box is predicted from every point; nine taps on its sides and
corners (a star) feed deformable convolutions that refine the box and score it by its expected overlap.

Shape letters: B images, L levels, H x W locations of a level, P points of all levels, K classes, N positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.overlaps import elementwise_iou
from ..assigners import ATSSAssigner
from ..backbones.resnet import ResNet
from ..coders import DistanceCoder
from ..dense.anchor_targets import batch_objects
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.points import kernel_taps, level_points, scaled_gradient
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower, tower
from ..detectors.single_stage import SingleStageDetector
from ..distributed import mean_count, reduce_mean
from ..layers import Scale
from ..layers.deform import GuidedDeformConv2d
from ..layers.init import bias_for_prior, init_normal
from ..losses import GIoULoss
from ..losses.iou import OverlapLoss
from ..losses.reduce import weighted_sum
from ..priors import AnchorGrid
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets
from .atss import square_anchors
from .fcos import fcos_pyramid

TOWER = Tower(depth=3)
UNIT = 8
"""Strides in which each level predicts distances."""


def varifocal_loss(
    logits: Tensor, quality: Tensor, normalizer: float | Tensor, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """Binary cross-entropy of (N, K) logits with a soft target, weighted by the target where there is one and by
    ``alpha * score ** gamma`` where it is zero (eq. 2)."""
    weight = torch.where(quality > 0, quality, alpha * logits.sigmoid() ** gamma)
    loss = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return weighted_sum(loss, weight, normalizer)


def star_offsets(distances: Tensor, stride: float) -> Tensor:
    """(B, 4, H, W) distances in pixels to (B, 18, H, W) offsets of a 3 x 3 kernel that move its taps to the point,
    the corners and the middles of the sides of its box (section 3.4)."""
    left, top, right, bottom = (distances / stride).unbind(dim=1)
    zero = torch.zeros_like(left)
    taps = [tap for y in (-top, zero, bottom) for x in (-left, zero, right) for tap in (y, x)]
    return torch.stack(taps, dim=1) - kernel_taps(3, distances.device).view(1, -1, 1, 1)


class VFNetHead(DenseHead):
    """Towers, a first box, and its refinement; outputs are (logits, refined, first) of each level.

    logits: (B, K, H, W), by sigmoid. refined and first: (B, 4, H, W) distances in pixels to the left, top, right and
    bottom side. towers: builds each of the two. units: pixels in which each level predicts distances; eight strides
    where not given. gradient_factor: of the gradient that flows from the refinement into the first box.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower = TOWER,
        anchors: AnchorGrid | None = None,
        assigner: ATSSAssigner | None = None,
        first_loss: OverlapLoss | None = None,
        refined_loss: OverlapLoss | None = None,
        units: Sequence[float] | None = None,
        gradient_factor: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels = towers.channels
        self.anchors, self.assigner = anchors or square_anchors(), assigner or ATSSAssigner()
        self.units = tuple(units or (UNIT * stride for stride in self.anchors.square_strides))
        self.coder, self.gradient_factor = DistanceCoder(), gradient_factor
        self.first_loss, self.refined_loss = first_loss or GIoULoss(weight=1.5), refined_loss or GIoULoss(weight=2.0)
        self.cls_convs = towers()
        self.reg_convs = towers()
        self.vfnet_reg_conv = tower(channels, channels, 1, towers.norm, bias=towers.bias)[0]
        self.vfnet_reg = nn.Conv2d(channels, 4, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in self.anchors.square_strides)
        self.vfnet_reg_refine_dconv = GuidedDeformConv2d(channels, channels, 3, padding=1)
        self.vfnet_reg_refine = nn.Conv2d(channels, 4, 3, padding=1)
        self.scales_refine = nn.ModuleList(Scale() for _ in self.anchors.square_strides)
        self.vfnet_cls_dconv = GuidedDeformConv2d(channels, channels, 3, padding=1)
        self.vfnet_cls = nn.Conv2d(channels, num_classes, 3, padding=1)
        init_normal(self)
        nn.init.constant_(self.vfnet_cls.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        logits, refined, first = [], [], []
        for level, x in enumerate(features):
            scored, located = self.cls_convs(x), self.reg_convs(x)
            stride, unit = self.anchors.square_strides[level], self.units[level]
            rough = self.scales[level](self.vfnet_reg(self.vfnet_reg_conv(located))).float().exp() * unit
            offsets = star_offsets(scaled_gradient(rough, self.gradient_factor), stride)
            located = F.relu(self.vfnet_reg_refine_dconv(located, offsets))
            factor = self.scales_refine[level](self.vfnet_reg_refine(located)).float().exp()
            logits.append(self.vfnet_cls(F.relu(self.vfnet_cls_dconv(scored, offsets))))
            refined.append(factor * rough.detach())
            first.append(rough)
        return logits, refined, first

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        sizes, device = feature_sizes(outputs[0]), outputs[0][0].device
        logits, refined, first = (
            all_by_prior(kind, channels) for kind, channels in zip(outputs, (self.num_classes, 4, 4), strict=True)
        )
        levels = self.anchors(sizes, device)
        labels, boxes = batch_objects(
            [self.assigner(levels, target.boxes) for target in targets], targets, self.num_classes
        )
        positive = labels < self.num_classes
        wanted = boxes[positive]
        points = torch.cat(level_points(sizes, self.anchors.square_strides, device, offset=0)).expand(
            len(targets), -1, -1
        )[positive]
        losses, overlap = {}, wanted.new_zeros(0)
        for name, distances, box_loss in (
            ("loss_bbox", first, self.first_loss),
            ("loss_bbox_rf", refined, self.refined_loss),
        ):
            pred = self.coder.decode(points, distances[positive])
            overlap = elementwise_iou(pred.detach(), wanted).clamp(min=1e-6)
            losses[name] = box_loss(pred, wanted, overlap, reduce_mean(overlap.sum()).clamp(min=1))
        quality = torch.zeros_like(logits)
        image, point = positive.nonzero(as_tuple=True)
        quality[image, point, labels[positive]] = overlap
        loss_cls = varifocal_loss(logits, quality, mean_count(positive.sum(), device))
        return {"loss_cls": loss_cls, **losses}

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, refined, _ = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [by_prior(level, 4) for level in refined],
            level_points(feature_sizes(logits), self.anchors.square_strides, logits[0].device, offset=0),
            self.coder.decode,
            images,
            test,
        )


def vfnet(
    num_classes: int, *, backbone: Callable[[], ResNet], last_conv: Callable[..., nn.Module] = nn.Conv2d
) -> SingleStageDetector:
    """VarifocalNet on a backbone with four stages; ``last_conv`` builds the last convolution of the head's towers."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=fcos_pyramid(body.out_channels),
        bbox_head=VFNetHead(num_classes=num_classes, towers=replace(TOWER, last_conv=last_conv)),
        test=DenseTest(nms_threshold=0.6),
    )
