"""ATSS: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
Selection".

RetinaNet's towers with group normalization, one square anchor at every location and FCOS's centerness; which anchors
are positive follows from the overlaps around each object, not from a fixed threshold.

Shape letters: B images, L levels, H x W locations of a level, P anchors of all levels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..assigners import ATSSAssigner
from ..backbones.resnet import ResNet
from ..boxes import box_centres
from ..coders import DeltaCoder, DistanceCoder
from ..dense.anchor_targets import batch_objects
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.points import centerness_of
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..distributed import mean_count, reduce_mean
from ..layers import Scale
from ..layers.init import bias_for_prior, init_normal
from ..losses import FocalLoss, GIoULoss, soft_binary_cross_entropy
from ..losses.iou import OverlapLoss
from ..necks.fpn import FPN
from ..priors import AnchorGrid, anchor_grid
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets

STRIDES = (8, 16, 32, 64, 128)

output_pyramid = partial(FPN, start=1, extra="output")
"""A pyramid whose two coarsest levels are made from the one before them."""


def square_anchors() -> AnchorGrid:
    """One square anchor of eight strides at every location (section 4)."""
    return anchor_grid(STRIDES, scales=(8,), ratios=(1.0,))


class ATSSHead(DenseHead):
    """Classification and regression towers; outputs are (logits, codes, centerness) of each level.

    logits: (B, K, H, W), by sigmoid. codes: (B, 4, H, W) deltas. centerness: (B, 1, H, W), by sigmoid.
    towers: builds each of the two. anchors: one for each location. centerness_weight: of its loss. kernel_size: of the
    three convolutions behind the towers, odd.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower | None = None,
        anchors: AnchorGrid | None = None,
        coder: DeltaCoder | None = None,
        assigner: ATSSAssigner | None = None,
        class_loss: FocalLoss | None = None,
        box_loss: OverlapLoss | None = None,
        centerness_weight: float = 1.0,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        towers = towers or Tower()
        self.anchors, self.coder = anchors or square_anchors(), coder or DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
        self.assigner = assigner or ATSSAssigner()
        self.class_loss, self.box_loss = class_loss or FocalLoss(), box_loss or GIoULoss(weight=2.0)
        self.centerness_weight = centerness_weight
        self.cls_convs = towers()
        self.reg_convs = towers()
        padding = kernel_size // 2
        self.atss_cls = nn.Conv2d(towers.channels, num_classes, kernel_size, padding=padding)
        self.atss_reg = nn.Conv2d(towers.channels, 4, kernel_size, padding=padding)
        self.atss_centerness = nn.Conv2d(towers.channels, 1, kernel_size, padding=padding)
        self.scales = nn.ModuleList(Scale() for _ in self.anchors.strides)
        init_normal(self)
        nn.init.constant_(self.atss_cls.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        located = [self.reg_convs(x) for x in features]
        return (
            [self.atss_cls(self.cls_convs(x)) for x in features],
            [scale(self.atss_reg(x)).float() for x, scale in zip(located, self.scales, strict=True)],
            [self.atss_centerness(x) for x in located],
        )

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes, centerness = outputs
        levels = self.anchors(feature_sizes(logits), logits[0].device)
        labels, boxes = batch_objects(
            [self.assigner(levels, target.boxes) for target in targets], targets, self.num_classes
        )
        positive = labels < self.num_classes
        count = mean_count(positive.sum(dim=1).clamp(min=1).sum(), boxes.device)
        loss_cls = self.class_loss(all_by_prior(logits, self.num_classes).flatten(0, 1), labels.flatten(), None, count)
        anchors, wanted = torch.cat(levels).expand_as(boxes)[positive], boxes[positive]
        wanted_centerness = centerness_of(DistanceCoder().encode(box_centres(anchors), wanted))
        loss_bbox = self.box_loss(
            self.coder.decode(anchors, all_by_prior(codes, 4)[positive]),
            wanted,
            wanted_centerness,
            reduce_mean(wanted_centerness.sum()).clamp(min=1),
        )
        loss_centerness = self.centerness_weight * soft_binary_cross_entropy(
            all_by_prior(centerness, 1)[positive][:, 0], wanted_centerness, None, count
        )
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox, "loss_centerness": loss_centerness}

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, codes, centerness = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [by_prior(level, 4) for level in codes],
            self.anchors(feature_sizes(logits), logits[0].device),
            self.coder.decode,
            images,
            test,
            [by_prior(level, 1)[..., 0].sigmoid() for level in centerness],
        )


def atss(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """ATSS on a backbone with four stages."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=output_pyramid(body.out_channels),
        bbox_head=ATSSHead(num_classes=num_classes),
        test=DenseTest(nms_threshold=0.6),
    )
