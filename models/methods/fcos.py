"""FCOS: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection".

Every location of five pyramid levels is a point that predicts its distances to the sides of the object around it; a
level is responsible for objects of its range of sizes, and a third output, centerness, lowers the scores of points
far from an object's middle.

Shape letters: B images, L levels, H x W locations of a level, P points, K classes, N objects of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..coders import DistanceCoder
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.points import centerness_of, level_points, per_point
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..distributed import mean_count, reduce_mean
from ..layers import Scale
from ..layers.init import bias_for_prior, init_normal
from ..losses import BoxLoss, FocalLoss, IoULoss, soft_binary_cross_entropy
from ..necks.fpn import FPN
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets

STRIDES = (8, 16, 32, 64, 128)
RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, float("inf")))
"""The longest distances to a side, in pixels, for which each level is responsible (section 3.2)."""

fcos_pyramid = partial(FPN, start=1, extra="output", relu_before_extra=True)
group_normalized_tower = Tower()


def point_targets(
    points: Tensor,
    ranges: Tensor,
    target: Targets,
    num_classes: int,
    reach: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which object each point of one image stands for: (P,) labels, K for background, and (P, 4) distances.

    A point takes the smallest object that it lies in, of those whose longest distance is in the point's range
    (section 3.2).

    points: (P, 2). ranges: (P, 2) least and greatest longest distance. reach: (P,) how far from an object's centre,
    along either axis, a point may lie; anywhere inside the object where not given.
    """
    boxes = target.boxes
    labels = torch.full((len(points),), num_classes, dtype=torch.int64, device=points.device)
    if len(boxes) == 0:
        return labels, points.new_zeros(len(points), 4)
    low, high = points[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - points[:, None]
    inside = torch.minimum(low, high).amin(dim=2) > 0
    if reach is not None:
        offset = (points[:, None] - (boxes[:, :2] + boxes[:, 2:])[None] / 2).abs().amax(dim=2)
        inside &= offset < reach[:, None]
    longest = torch.maximum(low, high).amax(dim=2)
    inside &= (longest >= ranges[:, :1]) & (longest <= ranges[:, 1:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).expand(len(points), -1)
    smallest, matched = area.masked_fill(~inside, float("inf")).min(dim=1)
    labels = torch.where(smallest.isinf(), labels, target.labels[matched])
    each = torch.arange(len(points), device=points.device)
    return labels, torch.cat((low[each, matched], high[each, matched]), dim=1)


class FCOSHead(DenseHead):
    """Classification and regression towers; outputs are (logits, distances, centerness) of each level.

    logits: (B, K, H, W), by sigmoid. distances: (B, 4, H, W) to the left, top, right and bottom, in pixels.
    centerness: (B, 1, H, W), by sigmoid.

    build_tower: makes one tower of ``channels`` channels. normalized: distances are rectified and in units of the
    stride, rather than exponentials in pixels. center_radius: points of an object lie at most this many strides from
    its centre; anywhere inside it where none. centerness_on_reg: the regression tower predicts centerness, rather than
    the classification tower. ranges: the longest distances for which each of the ``strides`` is responsible.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 256,
        build_tower: Callable[[], nn.Module] = group_normalized_tower,
        normalized: bool = False,
        center_radius: float | None = None,
        centerness_on_reg: bool = False,
        strides: Sequence[int] = STRIDES,
        ranges: Sequence[tuple[float, float]] = RANGES,
        class_loss: FocalLoss | None = None,
        box_loss: BoxLoss | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.strides, self.ranges = num_classes, tuple(strides), tuple(ranges)
        self.normalized, self.center_radius, self.centerness_on_reg = normalized, center_radius, centerness_on_reg
        self.coder, self.class_loss, self.box_loss = DistanceCoder(), class_loss or FocalLoss(), box_loss or IoULoss()
        self.cls_convs = build_tower()
        self.reg_convs = build_tower()
        self.conv_cls = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(channels, 4, 3, padding=1)
        self.conv_centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in self.strides)
        init_normal(self)
        nn.init.constant_(self.conv_cls.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        logits, distances, centerness = [], [], []
        for x, scale, stride in zip(features, self.scales, self.strides, strict=True):
            scored, located = self.cls_convs(x), self.reg_convs(x)
            logits.append(self.conv_cls(scored))
            # An exponential, or a distance of a large stride, leaves the range of half precision.
            distance = scale(self.conv_reg(located)).float()
            distances.append(F.relu(distance) * stride if self.normalized else distance.exp())
            centerness.append(self.conv_centerness(located if self.centerness_on_reg else scored))
        return logits, distances, centerness

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, distances, centerness = outputs
        levels = level_points(feature_sizes(logits), self.strides, logits[0].device)
        points = torch.cat(levels)
        ranges = torch.stack([per_point(ends, levels) for ends in zip(*self.ranges, strict=True)], dim=1)
        reach = None if self.center_radius is None else per_point(self.strides, levels) * self.center_radius
        each = [point_targets(points, ranges, target, self.num_classes, reach) for target in targets]
        labels = torch.cat([one[0] for one in each])
        positive = labels < self.num_classes
        wanted = torch.cat([one[1] for one in each])[positive]
        wanted_centerness = centerness_of(wanted)
        count = mean_count(positive.sum(), points.device)
        loss_cls = self.class_loss(all_by_prior(logits, self.num_classes).flatten(0, 1), labels, None, count)
        where = points.repeat(len(targets), 1)[positive]
        loss_bbox = self.box_loss(
            self.coder.decode(where, all_by_prior(distances, 4).flatten(0, 1)[positive]),
            self.coder.decode(where, wanted),
            wanted_centerness,
            reduce_mean(wanted_centerness.sum()).clamp(min=1e-6),
        )
        loss_centerness = soft_binary_cross_entropy(
            all_by_prior(centerness, 1).flatten()[positive], wanted_centerness, None, count
        )
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox, "loss_centerness": loss_centerness}

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, distances, centerness = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [by_prior(level, 4) for level in distances],
            level_points(feature_sizes(logits), self.strides, logits[0].device),
            self.coder.decode,
            images,
            test,
            [by_prior(level, 1)[..., 0].sigmoid() for level in centerness],
        )


def fcos(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[Sequence[int]], nn.Module] = fcos_pyramid,
    build_tower: Callable[[], nn.Module] = group_normalized_tower,
    normalized: bool = False,
    center_radius: float | None = None,
    centerness_on_reg: bool = False,
    box_loss: BoxLoss | None = None,
    nms_threshold: float = 0.5,
) -> SingleStageDetector:
    """FCOS on a backbone with four stages; the other arguments are those of ``FCOSHead``.

    neck: makes five levels of strides 8 to 128 from the backbone's channels.
    """
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=neck(body.out_channels),
        bbox_head=FCOSHead(
            num_classes=num_classes,
            build_tower=build_tower,
            normalized=normalized,
            center_radius=center_radius,
            centerness_on_reg=centerness_on_reg,
            box_loss=box_loss,
        ),
        test=DenseTest(nms_threshold=nms_threshold),
    )
