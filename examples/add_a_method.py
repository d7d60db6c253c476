"""A method that the zoo does not have, from the parts that it has.

IoU-aware RetinaNet: Wu, Li and Wang, "IoU-aware Single-stage Object Detector for Accurate Localization". RetinaNet with
one more convolution, which learns how well each box overlaps its object; at test time this and the class score make
the detection's score together, so that the better placed of two boxes survives suppression.

Shape letters: B images, H x W locations of a level, A anchors of a location, P anchors of all levels, Q positive ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

import sdk
from sdk.models import Detections, ImageBatch, Targets, find_recipe
from sdk.models.dense.anchor_targets import anchor_losses
from sdk.models.dense.head import all_by_prior, by_prior, feature_sizes
from sdk.models.dense.postprocess import dense_detections
from sdk.models.detectors.single_stage import SingleStageDetector
from sdk.models.methods.retinanet import RetinaHead, retina_anchors
from sdk.models.necks.fpn import FPN
from sdk.models.settings import DenseTest
from sdk.models.zoo.tiny import STRIDES, small_resnet
from sdk.ops.overlaps import elementwise_iou

CLASS_SHARE = 0.5
"""alpha in equation 4: how much of a score comes from the class."""


class IoUAwareHead(RetinaHead):
    """RetinaNet's head with a third output, overlaps: (B, A, H, W) of each level, by sigmoid."""

    def __init__(self, *, num_classes: int, channels: int) -> None:
        super().__init__(
            num_classes=num_classes, in_channels=channels, channels=channels, depth=2, anchors=retina_anchors(STRIDES)
        )
        self.retina_iou = nn.Conv2d(channels, self.anchors.anchors_per_location[0], 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        logits, codes, overlaps = [], [], []
        for x in features:
            for_box = self.reg_convs(x)
            logits.append(self.retina_cls(self.cls_convs(x)))
            codes.append(self.retina_reg(for_box))
            overlaps.append(self.retina_iou(for_box))
        return logits, codes, overlaps

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """Those of RetinaNet, and the cross-entropy of the (Q,) overlaps of positives with what their boxes reach."""
        anchors, wanted = self.anchor_targets(feature_sizes(outputs[0]), images, targets)
        logits, codes = all_by_prior(outputs[0], self.num_classes), all_by_prior(outputs[1], 4)
        loss_cls, loss_bbox = anchor_losses(
            logits,
            codes,
            anchors,
            wanted,
            class_loss=self.loss_cls,
            box_loss=self.loss_bbox,
            coder=self.coder,
            normalizer=wanted.positives,
        )
        priors = anchors.expand(len(codes), -1, -1)[wanted.positive]
        boxes = self.coder.decode(priors, codes[wanted.positive].detach())
        objects = self.coder.decode(priors, wanted.codes[wanted.positive])
        overlaps = all_by_prior(outputs[2], 1)[wanted.positive][:, 0]
        loss_iou = F.binary_cross_entropy_with_logits(overlaps, elementwise_iou(boxes, objects), reduction="sum")
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox, "loss_iou": loss_iou / wanted.positives}

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, codes, overlaps = outputs
        scores = [
            by_prior(level, self.num_classes).sigmoid() ** CLASS_SHARE
            * by_prior(overlap, 1).sigmoid() ** (1 - CLASS_SHARE)
            for level, overlap in zip(logits, overlaps, strict=True)
        ]
        anchors = self.anchors(feature_sizes(logits), logits[0].device)
        return dense_detections(
            scores, [by_prior(level, 4) for level in codes], anchors, self.coder.decode, images, test
        )


def iou_aware_retinanet(num_classes: int) -> SingleStageDetector:
    """A small one, which learns drawn shapes on two CPU cores."""
    body = small_resnet(16)
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, 32, start=1, num_outs=len(STRIDES), extra="input"),
        bbox_head=IoUAwareHead(num_classes=num_classes, channels=32),
        test=DenseTest(),
    )


def main(arguments: list[str] | None = None) -> float | None:
    """Returns the AP on the validation images."""
    options = argparse.ArgumentParser("add_a_method.py")
    options.add_argument("--images", type=int, default=400)
    options.add_argument("--epochs", type=int, default=24)
    options.add_argument("--out")
    given = options.parse_args(arguments)

    dataset = sdk.datasets.Shapes(given.images)
    recipe = replace(find_recipe("retinanet_tiny_shapes"), name="iou_aware_retinanet", build=iou_aware_retinanet)
    model = recipe.build(len(dataset.classes))
    run = sdk.fit(dataset, model, recipe=recipe, epochs=given.epochs, out=given.out)
    report = sdk.evaluate(dataset, run)
    return report["bbox/AP"]


if __name__ == "__main__":
    main()
