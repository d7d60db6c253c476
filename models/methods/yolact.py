"""YOLACT: Bolya et al., "YOLACT: Real-time Instance Segmentation".

A dense head that also predicts, for every anchor, the coefficients of a few prototype masks which a small network
makes for the whole image; an instance's mask is their sum, cut to its box.

Shape letters: B images, H x W pixels of the batch, h x w pixels of the prototypes, A anchors of a location,
P anchors, K classes, M prototypes, N objects or detections of an image, Q positive anchors of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.overlaps import pairwise_iou
from ..assigners import MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..boxes import box_sizes, to_batch_frame, to_output_frame
from ..coders import DeltaCoder
from ..dense.anchor_targets import AnchorTargets, head_targets
from ..dense.head import all_by_prior, feature_sizes
from ..detectors.base import Detector, full_precision
from ..layers import ConvModule
from ..layers.init import init_xavier
from ..losses import SmoothL1Loss
from ..necks.fpn import FPN
from ..priors import AnchorGrid, base_anchors
from ..samplers import AllSampler, random_choice
from ..structures import Detections, ImageBatch, Targets
from .ssd import hard_negative_loss

IMAGE_SIZE = 550
FEATURE_SIZES = (69, 35, 18, 9, 5)
ANCHOR_SIZES = (24, 48, 96, 192, 384)
PROTOTYPES = 32


@dataclass
class YolactTest:
    """Settings of YOLACT. candidates_per_level: anchors by their best class; top_per_class: what fast NMS compares."""

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_per_image: int = 100
    candidates_per_level: int = 1000
    top_per_class: int = 200
    mask_threshold: float = 0.5


def yolact_anchors() -> AnchorGrid:
    """Three ratios of one size on every level, spread evenly over an image of 550 pixels (section 4)."""
    strides = [IMAGE_SIZE / size for size in FEATURE_SIZES]
    bases = [
        base_anchors(size, (1.0,), (0.5, 1.0, 2.0), center=(stride / 2, stride / 2))
        for size, stride in zip(ANCHOR_SIZES, strides, strict=True)
    ]
    return AnchorGrid(strides, bases)


class YOLACTHead(nn.Module):
    """One shared convolution, then (logits, codes, coefficients) of each level.

    logits: (B, A (K + 1), h, w), by softmax, the last class background. codes: (B, A 4, h, w).
    coefficients: (B, A M, h, w) in -1..1.
    """

    def __init__(self, *, num_classes: int, channels: int = 256) -> None:
        super().__init__()
        self.num_classes, self.anchors = num_classes, yolact_anchors()
        self.coder = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
        self.assigner = MaxIoUAssigner(positive=0.5, negative=0.4, match_all_best=False)
        self.sampler, self.loss_bbox, self.negative_ratio = AllSampler(), SmoothL1Loss(weight=1.5), 3
        count = self.anchors.anchors_per_location[0]
        self.head_convs = nn.ModuleList([ConvModule(channels, channels, 3, padding=1, activation=nn.ReLU())])
        self.conv_cls = nn.Conv2d(channels, count * (num_classes + 1), 3, padding=1)
        self.conv_reg = nn.Conv2d(channels, count * 4, 3, padding=1)
        self.conv_coeff = nn.Conv2d(channels, count * PROTOTYPES, 3, padding=1)
        init_xavier(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        shared = [self.head_convs[0](x) for x in features]
        return (
            [self.conv_cls(x) for x in shared],
            [self.conv_reg(x) for x in shared],
            [self.conv_coeff(x).tanh() for x in shared],
        )

    def targets(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> AnchorTargets:
        """What every anchor should predict."""
        _, wanted = head_targets(self, feature_sizes(outputs[0]), images, targets)
        return wanted

    def loss(self, outputs: tuple[list[Tensor], ...], wanted: AnchorTargets) -> dict[str, Tensor]:
        """Classification with hard negatives, and regression, divided by the number of positives."""
        logits, codes = all_by_prior(outputs[0], self.num_classes + 1), all_by_prior(outputs[1], 4)
        each = F.cross_entropy(logits.flatten(0, 1), wanted.labels.flatten(), reduction="none")
        loss_cls = hard_negative_loss(each.view_as(wanted.labels), wanted, self.negative_ratio, keep_all_if_empty=True)
        loss_bbox = self.loss_bbox(codes[wanted.positive], wanted.codes[wanted.positive], None, wanted.positives)
        return {"loss_cls": loss_cls / wanted.positives, "loss_bbox": loss_bbox}

    def predict(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: YolactTest
    ) -> list[tuple[Detections, Tensor]]:
        """Detections of each image, without masks, and their (N, M) coefficients."""
        anchors = self.anchors(feature_sizes(outputs[0]), images.pixels.device)
        channels = (self.num_classes + 1, 4, PROTOTYPES)
        levels = [
            tuple(all_by_prior([kind[level]], c) for kind, c in zip(outputs, channels, strict=True))
            for level in range(len(anchors))
        ]
        found = []
        for index, size in enumerate(images.sizes):
            boxes, scores, coefficients = [], [], []
            for (logits, codes, coeffs), own_anchors in zip(levels, anchors, strict=True):
                score = logits[index].softmax(dim=1)[:, :-1]
                top = score.amax(dim=1).topk(min(test.candidates_per_level, len(score))).indices
                boxes.append(self.coder.decode(own_anchors[top], codes[index][top], size))
                scores.append(score[top])
                coefficients.append(coeffs[index][top])
            output_boxes = to_output_frame(torch.cat(boxes), images, index)
            found.append(fast_nms(output_boxes, torch.cat(scores), torch.cat(coefficients), test))
        return found


def fast_nms(boxes: Tensor, scores: Tensor, coefficients: Tensor, test: YolactTest) -> tuple[Detections, Tensor]:
    """Suppress all at once: a box goes if any better box of its class overlaps it, kept or not (section 3.4).

    boxes: (P, 4). scores: (P, K). coefficients: (P, M). Returns detections and their (N, M) coefficients.
    """
    by_class, order = scores.t().sort(dim=1, descending=True)
    by_class, order = by_class[:, : test.top_per_class], order[:, : test.top_per_class]
    # Classes with nothing above the threshold are not compared.
    labels = (by_class > test.score_threshold).any(dim=1).nonzero()[:, 0]
    kept_boxes, kept_scores, kept_labels, kept_coefficients = [boxes[:0]], [scores[:0, 0]], [labels[:0]], []
    kept_coefficients.append(coefficients[:0])
    for label in labels.tolist():
        candidates = order[label]
        overlaps = pairwise_iou(boxes[candidates], boxes[candidates]).triu(diagonal=1)
        keep = (overlaps.amax(dim=0) <= test.nms_threshold) & (by_class[label] > test.score_threshold)
        kept_boxes.append(boxes[candidates[keep]])
        kept_scores.append(by_class[label][keep])
        kept_labels.append(torch.full_like(candidates[keep], label))
        kept_coefficients.append(coefficients[candidates[keep]])
    all_scores, best = torch.cat(kept_scores).sort(descending=True)
    best = best[: test.max_per_image]
    found = Detections(torch.cat(kept_boxes)[best], all_scores[: len(best)], torch.cat(kept_labels)[best])
    return found, torch.cat(kept_coefficients)[best]


def cut_to_boxes(masks: Tensor, boxes: Tensor) -> Tensor:
    """(N, h, w) masks, zero outside their (N, 4) boxes, which are given relative to the image (0..1), and a margin of
    one pixel (section 3.3)."""
    height, width = masks.shape[1:]
    scale = boxes.new_tensor((width, height, width, height))
    corners = boxes * scale
    low = (torch.minimum(corners[:, :2], corners[:, 2:]) - 1).clamp(min=0)
    high = torch.maximum(corners[:, :2], corners[:, 2:]) + 1
    xs = torch.arange(width, device=masks.device)[None, None, :]
    ys = torch.arange(height, device=masks.device)[None, :, None]
    across = (xs >= low[:, 0, None, None]) & (xs < high[:, 0, None, None])
    down = (ys >= low[:, 1, None, None]) & (ys < high[:, 1, None, None])
    return masks * (across & down)


class Upsample(nn.Module):
    """Bilinear upsampling by two."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Protonet(nn.Module):
    """Prototype masks from the finest pyramid level (figure 3): (B, C, h/2, w/2) to (B, M, h, w)."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [Upsample(), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(channels, PROTOTYPES, 1), nn.ReLU(inplace=True)]
        self.protonet = nn.Sequential(*layers)
        self.loss_weight, self.most = 6.125, 100
        init_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.protonet(x)

    def masks(self, prototypes: Tensor, coefficients: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(M, h, w) prototypes, (N, M) coefficients and (N, 4) boxes in an image of (h, w) to (N, h, w) in 0..1."""
        masks = torch.einsum("nm,mhw->nhw", coefficients, prototypes).sigmoid()
        return cut_to_boxes(masks, boxes / boxes.new_tensor((size[1], size[0])).repeat(2))

    def loss(
        self,
        prototypes: Tensor,
        coefficients: Tensor,
        wanted: AnchorTargets,
        images: ImageBatch,
        targets: Sequence[Targets],
    ) -> Tensor:
        """Cross-entropy of the masks of at most 100 positives an image, each divided by its box's share of the image.

        coefficients: (B, P, M).
        """
        total, count = prototypes.sum() * 0 + coefficients.sum() * 0, 0
        for index, target in enumerate(targets):
            positive = wanted.positive[index].nonzero()[:, 0]
            if len(positive) > self.most:
                positive = random_choice(positive, self.most)
            count += len(positive)
            if not len(positive):
                continue
            matched = wanted.matched[index, positive]
            boxes, size = target.boxes[matched], images.sizes[index]
            pred = self.masks(prototypes[index], coefficients[index, positive], boxes, size)
            masks = small_masks(target, (int(pred.shape[1]), int(pred.shape[2])))[matched]
            loss = F.binary_cross_entropy(pred.clamp(0, 1), masks, reduction="none").mean(dim=(1, 2))
            share = box_sizes(boxes) / boxes.new_tensor((size[1], size[0]))
            total = total + self.loss_weight * (loss / share[:, 0] / share[:, 1]).sum()
        return total / max(count, 1)


def resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) masks to (N, h, w), bilinearly; N may be zero."""
    return F.interpolate(masks[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def small_masks(target: Targets, size: tuple[int, int]) -> Tensor:
    """The (N, H, W) masks of a target at (h, w), 0 or 1."""
    if target.masks is None:
        raise ValueError("Targets.masks: this detector learns masks, but the targets have none")
    return (resized(target.masks.float(), size) > 0.5).float()


class SegmentationHead(nn.Module):
    """Class maps from the finest pyramid level, for training only (section 4, "Semantic Segmentation Loss")."""

    def __init__(self, *, num_classes: int, channels: int = 256) -> None:
        super().__init__()
        self.segm_conv = nn.Conv2d(channels, num_classes, 1)
        init_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.segm_conv(x)

    def loss(self, logits: Tensor, targets: Sequence[Targets]) -> Tensor:
        """Sigmoid cross-entropy, averaged over images and pixels and summed over classes; (B, K, h, w) logits."""
        wanted = torch.zeros_like(logits)
        for own, target in zip(wanted, targets, strict=True):
            masks = small_masks(target, (int(logits.shape[2]), int(logits.shape[3])))
            # The published weights were trained with the classes moved by one channel, the first to the last.
            channel = (target.labels - 1) % len(own)
            own.scatter_reduce_(0, channel[:, None, None].expand_as(masks), masks, "amax")
        total = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return total / (len(logits) * logits.shape[2] * logits.shape[3])


class YOLACT(Detector):
    """Backbone, pyramid, dense head, prototype network and segmentation head."""

    def __init__(self, *, backbone: nn.Module, neck: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.bbox_head = YOLACTHead(num_classes=num_classes)
        self.segm_head = SegmentationHead(num_classes=num_classes)
        self.mask_head = Protonet()
        self.num_classes, self.test = num_classes, YolactTest()

    def forward(self, images: ImageBatch, targets: Sequence[Targets]) -> dict[str, Tensor]:
        features = self.neck(self.backbone(images.pixels))
        outputs = full_precision(self.bbox_head(features))
        wanted = self.bbox_head.targets(outputs, images, targets)
        losses = self.bbox_head.loss(outputs, wanted)
        prototypes, segmentation = full_precision((self.mask_head(features[0]), self.segm_head(features[0])))
        coefficients = all_by_prior(outputs[2], PROTOTYPES)
        losses["loss_mask"] = self.mask_head.loss(prototypes, coefficients, wanted, images, targets)
        losses["loss_segm"] = self.segm_head.loss(segmentation, targets)
        return losses

    def predict(self, images: ImageBatch) -> list[Detections]:
        features = self.neck(self.backbone(images.pixels))
        prototypes = full_precision(self.mask_head(features[0]))
        outputs = full_precision(self.bbox_head(features))
        detections = []
        for index, (found, coefficients) in enumerate(self.bbox_head.predict(outputs, images, self.test)):
            boxes = to_batch_frame(found.boxes, images, index)
            masks = self.mask_head.masks(prototypes[index], coefficients, boxes, images.sizes[index])
            size = images.output_size(index)
            detections.append(replace(found, masks=resized(masks, size) > self.test.mask_threshold))
        return detections


def yolact(num_classes: int, *, backbone: Callable[[], ResNet]) -> YOLACT:
    """YOLACT on a backbone with four stages, for images of 550 x 550."""
    body = backbone()
    neck = FPN(body.out_channels, start=1, extra="input", upsample="bilinear")
    return YOLACT(backbone=body, neck=neck, num_classes=num_classes)
