"""Region proposal network: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", section 3.1, on a feature pyramid (Lin et al., section 4.1).

Shape letters: B images, H x W locations of a level, A anchors of a location, P anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.nms import batched_nms
from ..assigners import MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..boxes import box_sizes, to_output_frame
from ..coders import BoxCoder, DeltaCoder
from ..dense.anchor_targets import anchor_losses, anchor_targets
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.open_sizes import NOT_THERE, best, padded, take, unsuppressed
from ..dense.towers import tower
from ..detectors.base import Detector, full_precision
from ..detectors.two_stage import ProposalHead
from ..layers.init import init_normal
from ..losses import BinaryCrossEntropy, BoxLoss, L1Loss
from ..necks.fpn import FPN
from ..priors import AnchorGrid, anchor_grid
from ..samplers import RandomSampler, Sampler
from ..settings import ProposalSettings
from ..structures import Detections, ImageBatch, OpenBatch, Proposals, Targets


def rpn_anchors(strides: Sequence[int] = (4, 8, 16, 32, 64)) -> AnchorGrid:
    """One scale of three ratios on every level."""
    return anchor_grid(strides, scales=(8,), ratios=(0.5, 1.0, 2.0))


def select_proposals(
    scores: Sequence[Tensor],
    decode: Callable[[int, Tensor], Tensor],
    settings: ProposalSettings,
) -> Proposals:
    """The best boxes of every level of one image, after NMS within each level.

    scores: (P,) of each level. decode: from a level and indices into it to (N, 4) boxes.
    """
    boxes, values, levels = [], [], []
    for level, score in enumerate(scores):
        count = min(settings.candidates_per_level, len(score))
        value, index = score.topk(count)
        boxes.append(decode(level, index))
        values.append(value)
        levels.append(index.new_full((count,), level))
    all_boxes, all_values, all_levels = torch.cat(boxes), torch.cat(values), torch.cat(levels)
    large = (box_sizes(all_boxes) > settings.min_size).all(dim=1)
    all_boxes, all_values, all_levels = all_boxes[large], all_values[large], all_levels[large]
    keep = batched_nms(all_boxes, all_values, all_levels, settings.nms_threshold)[: settings.max_per_image]
    return Proposals(all_boxes[keep], all_values[keep])


def anchor_proposals(
    logits: Sequence[Tensor],
    codes: Sequence[Tensor],
    anchors: Sequence[Tensor],
    images: ImageBatch,
    coder: BoxCoder,
    settings: ProposalSettings,
    masks: Sequence[Tensor] | None = None,
) -> list[Proposals]:
    """Proposals of each image from what is said of its anchors; no gradient flows back.

    logits: (B, A, H, W) of each level, by sigmoid. codes: (B, A 4, H, W). anchors: (B, P, 4). masks: (B, P) bool, which
    anchors there are; all where absent.
    """
    scores = [by_prior(level.detach(), 1)[..., 0].sigmoid() for level in logits]
    deltas = [by_prior(level.detach(), 4) for level in codes]
    if isinstance(images, OpenBatch):
        if masks is not None:
            scores = [torch.where(mask, level, NOT_THERE) for level, mask in zip(scores, masks, strict=True)]
        return [open_proposals(scores, deltas, anchors, images, coder, settings)]
    masks = masks or [torch.ones_like(level, dtype=torch.bool) for level in scores]
    proposals = []
    for image, size in enumerate(images.sizes):
        kept = [mask[image].nonzero()[:, 0] for mask in masks]

        def decode(
            level: int, index: Tensor, image: int = image, size: tuple[int, int] = size, kept: list[Tensor] = kept
        ) -> Tensor:
            where = kept[level][index]
            return coder.decode(anchors[level][image][where], deltas[level][image][where], size)

        own = [level[image][where] for level, where in zip(scores, kept, strict=True)]
        proposals.append(select_proposals(own, decode, settings))
    return proposals


def open_proposals(
    scores: Sequence[Tensor],
    codes: Sequence[Tensor],
    anchors: Sequence[Tensor],
    images: OpenBatch,
    coder: BoxCoder,
    settings: ProposalSettings,
) -> Proposals:
    """Proposals of all images of an OpenBatch, (B, P, 4) and (B, P); behind an image's own, boxes and scores are 0.

    scores: (B, P) of each level. codes and anchors: (B, P, 4).
    """
    boxes, values = [], []
    limit, most = settings.candidates_per_level, settings.max_per_image
    for score, code, anchor in zip(scores, codes, anchors, strict=True):
        value, index = best(score, limit)
        size = images.each_size(limit)
        own = coder.decode(take(anchor, index).flatten(0, 1), take(code, index).flatten(0, 1), size)
        large = (box_sizes(own) > settings.min_size).all(dim=1)
        own = own.unflatten(0, (-1, limit))
        value = torch.where(large.unflatten(0, (-1, limit)), value, NOT_THERE)
        boxes.append(own)
        values.append(unsuppressed(own, value[:, None], images.suppress, settings.nms_threshold, most)[:, 0])
    value, index = best(torch.cat(values, dim=1), most)
    there = value > 0
    return Proposals(torch.where(there[..., None], take(torch.cat(boxes, dim=1), index), 0.0), value.clamp(min=0))


def as_objects(targets: Sequence[Targets]) -> list[Targets]:
    """The targets with all objects in the one class that a proposal network knows."""
    return [replace(target, labels=torch.zeros_like(target.labels)) for target in targets]


class RPNHead(DenseHead):
    """Shared convolutions, then objectness and regression; outputs are (logits, codes) of each level.

    logits: (B, A, H, W), by sigmoid. codes: (B, A 4, H, W). border: anchors reaching further outside the image are
    not trained on (all are, where negative). convs: how many shared convolutions. training and testing: how proposals
    are made in either mode.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        channels: int = 256,
        anchors: AnchorGrid | None = None,
        coder: BoxCoder | None = None,
        assigner: MaxIoUAssigner | None = None,
        sampler: Sampler | None = None,
        class_weight: float = 1.0,
        box_loss: BoxLoss | None = None,
        border: float = -1,
        convs: int = 1,
        training: ProposalSettings | None = None,
        testing: ProposalSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = 1
        self.anchors = anchors or rpn_anchors()
        self.coder = coder or DeltaCoder()
        self.assigner = assigner or MaxIoUAssigner(positive=0.7, negative=0.3, min_positive=0.3)
        self.sampler = sampler or RandomSampler(num=256, pos_fraction=0.5)
        self.class_loss, self.box_loss = BinaryCrossEntropy(class_weight), box_loss or L1Loss()
        self.border = border
        self.train_proposals = training or ProposalSettings(candidates_per_level=2000)
        self.test_proposals = testing or ProposalSettings()
        per_location = self.anchors.anchors_per_location[0]
        if convs == 1:
            self.rpn_conv: nn.Module = nn.Conv2d(in_channels, channels, 3, padding=1)
        else:
            self.rpn_conv = tower(in_channels, channels, convs)
        self.rpn_cls = nn.Conv2d(channels, per_location, 1)
        self.rpn_reg = nn.Conv2d(channels, per_location * 4, 1)
        init_normal(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [F.relu(self.rpn_conv(x)) for x in features]
        return [self.rpn_cls(x) for x in hidden], [self.rpn_reg(x) for x in hidden]

    def outputs(self, features: Sequence[Tensor], images: ImageBatch) -> tuple[list[Tensor], ...]:
        """Raw outputs, in float32."""
        return full_precision(self(features))

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes = outputs
        anchors, wanted = anchor_targets(
            self.anchors,
            feature_sizes(logits),
            images,
            as_objects(targets),
            num_classes=1,
            assign=self.assigner,
            sampler=self.sampler,
            coder=self.coder,
            box_loss=self.box_loss,
            border=self.border,
        )
        loss_cls, loss_bbox = anchor_losses(
            all_by_prior(logits, 1),
            all_by_prior(codes, 4),
            anchors,
            wanted,
            class_loss=self.class_loss,
            box_loss=self.box_loss,
            coder=self.coder,
            normalizer=wanted.positives + wanted.negatives,
        )
        return {"loss_rpn_cls": loss_cls, "loss_rpn_bbox": loss_bbox}

    def propose(self, outputs: tuple[list[Tensor], ...], images: ImageBatch) -> list[Proposals]:
        """Proposals of each image in batch pixels, by the settings of the current mode; no gradient flows back."""
        settings = self.train_proposals if self.training else self.test_proposals
        logits, codes = outputs
        anchors = self.anchors(feature_sizes(logits), logits[0].device)
        own = [level.expand(images.pixels.shape[0], -1, -1) for level in anchors]
        return anchor_proposals(logits, codes, own, images, self.coder, settings)


class RPN(Detector):
    """A region proposal network on its own; its detections are proposals with label 0."""

    def __init__(self, *, backbone: nn.Module, neck: nn.Module, rpn_head: ProposalHead) -> None:
        super().__init__()
        self.backbone, self.neck, self.rpn_head = backbone, neck, rpn_head
        self.num_classes, self.test = 1, rpn_head.test_proposals

    def outputs(self, images: ImageBatch) -> tuple[list[Tensor], ...]:
        """The head's raw outputs, in float32."""
        return self.rpn_head.outputs(self.neck(self.backbone(images.pixels)), images)

    def forward(self, images: ImageBatch, targets: Sequence[Targets]) -> dict[str, Tensor]:
        return self.rpn_head.loss(self.outputs(images), images, targets)

    def predict(self, images: ImageBatch) -> list[Detections]:
        found = self.rpn_head.propose(self.outputs(images), images)
        if isinstance(images, OpenBatch):
            boxes, scores = to_output_frame(found[0].boxes, images, 0), found[0].scores
            return padded(boxes, scores, torch.zeros_like(scores, dtype=torch.int64))
        return [
            Detections(
                to_output_frame(proposals.boxes, images, index),
                proposals.scores,
                torch.zeros(len(proposals), dtype=torch.int64, device=proposals.boxes.device),
            )
            for index, proposals in enumerate(found)
        ]


def rpn(num_classes: int, *, backbone: Callable[[], ResNet]) -> RPN:
    """RPN on a backbone with four stages; ``num_classes`` plays no part, since proposals have no class."""
    body = backbone()
    head = RPNHead(border=0, testing=ProposalSettings(candidates_per_level=2000))
    return RPN(backbone=body, neck=FPN(body.out_channels), rpn_head=head)
