"""YOLOF: Chen et al., "You Only Look One-level Feature". One map of stride 32, an encoder of dilated convolutions,
and as many anchors for every object, whatever its size.

Shape letters: B images, H x W locations, A anchors of a location, P anchors, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..assigners.base import IGNORED
from ..assigners.uniform import UniformAssigner
from ..backbones.resnet import ResNet
from ..coders import BoxCoder, DeltaCoder
from ..dense.anchor_targets import matched_objects
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.postprocess import dense_detections
from ..dense.towers import tower
from ..detectors.single_stage import SingleStageDetector
from ..distributed import reduce_mean
from ..layers import BN, Norm
from ..layers.init import bias_for_prior, init_normal
from ..losses import FocalLoss, GIoULoss
from ..losses.iou import OverlapLoss
from ..necks.dilated_encoder import DilatedEncoder
from ..priors import AnchorGrid, anchor_grid
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets

LIMIT = math.log(1e8)
"""Logits count as no more than this where the joint logit is normalized."""


class YOLOFHead(DenseHead):
    """Two convolutions for classes and four for boxes and an implicit objectness; outputs are (logits, codes), lists
    of one map.

    logits: (B, A K, H, W), by sigmoid, objectness included. codes: (B, A 4, H, W). class_convs and box_convs: how many
    convolutions each branch has.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 512,
        class_convs: int = 2,
        box_convs: int = 4,
        norm: Norm = BN,
        anchors: AnchorGrid | None = None,
        coder: BoxCoder | None = None,
        assigner: UniformAssigner | None = None,
        class_loss: FocalLoss | None = None,
        box_loss: OverlapLoss | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.anchors = anchors or anchor_grid((32,), scales=(1, 2, 4, 8, 16), ratios=(1.0,))
        self.coder, self.assigner = coder or DeltaCoder(center_limit=32), assigner or UniformAssigner()
        self.class_loss, self.box_loss = class_loss or FocalLoss(), box_loss or GIoULoss()
        count = self.anchors.anchors_per_location[0]
        self.cls_subnet = tower(channels, channels, class_convs, norm)
        self.bbox_subnet = tower(channels, channels, box_convs, norm)
        self.cls_score = nn.Conv2d(channels, count * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, count * 4, 3, padding=1)
        self.object_pred = nn.Conv2d(channels, count, 3, padding=1)
        init_normal(self)
        nn.init.constant_(self.cls_score.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        x = features[0]
        located = self.bbox_subnet(x)
        scores = self.cls_score(self.cls_subnet(x)).float().unflatten(1, (-1, self.num_classes))
        objectness = self.object_pred(located).float()[:, :, None]
        # The logit of the product of both probabilities.
        both = 1 + scores.clamp(max=LIMIT).exp() + objectness.clamp(max=LIMIT).exp()
        return [(scores + objectness - both.log()).flatten(1, 2)], [self.bbox_pred(located)]

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes = all_by_prior(outputs[0], self.num_classes), all_by_prior(outputs[1], 4)
        anchors = self.anchors(feature_sizes(outputs[0]), logits.device)[0]
        labels, weights, predicted, wanted, count = [], [], [], [], 0
        for own_codes, target in zip(codes, targets, strict=True):
            boxes = self.coder.decode(anchors, own_codes)
            assignment, prior, truth = self.assigner(boxes.detach(), anchors, target.boxes)
            labels.append(matched_objects(assignment, target, self.num_classes)[0])
            weights.append((assignment.matched != IGNORED).float())
            predicted.append(boxes[prior])
            wanted.append(target.boxes[truth])
            count += max(int(assignment.positive.sum()), 1)
        normalizer = reduce_mean(logits.new_tensor(float(count)))
        loss_cls = self.class_loss(logits.flatten(0, 1), torch.cat(labels), torch.cat(weights), normalizer)
        pairs = torch.cat(predicted)
        loss_bbox = self.box_loss(pairs, torch.cat(wanted), None, normalizer) if len(pairs) else codes.sum() * 0
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox}

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, codes = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [by_prior(level, 4) for level in codes],
            self.anchors(feature_sizes(logits), logits[0].device),
            self.coder.decode,
            images,
            test,
        )


def yolof(num_classes: int, *, backbone: Callable[..., ResNet]) -> SingleStageDetector:
    """YOLOF on the last stage of a backbone."""
    body = backbone(out_stages=(3,))
    return SingleStageDetector(
        backbone=body,
        neck=DilatedEncoder(body.out_channels),
        bbox_head=YOLOFHead(num_classes=num_classes),
        test=DenseTest(nms_threshold=0.6),
    )
