"""Guided Anchoring: Wang et al., "Region Proposal by Guided Anchoring".

RPN and RetinaNet with one anchor at a location, of which the network itself says whether an object is likely there and
which shape its anchor has; features are adapted to that shape before they are read.

Shape letters: B images, C channels, L levels, H x W locations of a level, P locations of all levels, A sampled shapes
of a location, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ...ops.masked_conv import masked_conv2d
from ..assigners import MaxIoUAssigner
from ..assigners.approx_max_iou import ApproxMaxIoUAssigner
from ..assigners.base import BACKGROUND
from ..assigners.region import RegionAssigner
from ..backbones.resnet import ResNet
from ..coders import BoxCoder, DeltaCoder
from ..dense.anchor_targets import Assign, anchor_losses, batch_targets
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower
from ..detectors.base import full_precision
from ..detectors.single_stage import SingleStageDetector
from ..detectors.two_stage import TwoStageDetector
from ..layers.deform import FeatureAdaption
from ..layers.init import bias_for_prior, init_normal
from ..losses import BinaryCrossEntropy, BoundedIoULoss, BoxLoss, FocalLoss, SmoothL1Loss
from ..necks.fpn import FPN
from ..priors import AnchorGrid, anchor_grid, octave_scales
from ..roi.box_head import BoxHead
from ..roi.standard import StandardRoIHead
from ..samplers import AllSampler, RandomSampler, Sampler
from ..settings import DenseTest, ProposalSettings, RoITest
from ..structures import Detections, ImageBatch, Proposals, Targets
from .faster_rcnn import faster_rcnn
from .retinanet import STRIDES
from .rpn import RPN, anchor_proposals, as_objects

LEAST_LOCATION_SCORE = 0.01
"""Where less is expected no anchor is placed at test time (section 3.2)."""
PROPOSAL_RULE = MaxIoUAssigner(positive=0.7, negative=0.3, min_positive=0.3)
TOWER = Tower(norm=None)


class MaskedConv2d(nn.Conv2d):
    """A convolution that may be computed at some places only, and is zero elsewhere."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(B, C, H, W) and (B, H, W) bool, all places where absent, to (B, C', H, W)."""
        if mask is None:
            return super().forward(x)
        return masked_conv2d(x, mask, self.weight, self.bias, self.padding, self.stride)  # type: ignore[arg-type]


class AnchorGuide(nn.Module):
    """Turns predicted locations and shapes into anchors, and trains them (sections 3.2 and 3.4). Without parameters.

    scale: size in strides of the squares from which shapes are counted. rule: how overlaps of the ``sampled`` anchors
    decide which locations learn a shape; coder: how it is written. core and ring: shares of an object whose locations
    learn to be one, and are left out. least_score: where less is expected no anchor is placed at test time.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        scale: float,
        rule: MaxIoUAssigner,
        coder: DeltaCoder | None = None,
        sampled: AnchorGrid | None = None,
        sampler: Sampler | None = None,
        core: float = 0.2,
        ring: float = 0.5,
        location_loss: FocalLoss | None = None,
        shape_loss: BoundedIoULoss | None = None,
        least_score: float = LEAST_LOCATION_SCORE,
    ) -> None:
        super().__init__()
        self.least_score = least_score
        self.sampled = sampled or anchor_grid(strides, scales=octave_scales(scale, 3), ratios=(0.5, 1.0, 2.0))
        self.squares = anchor_grid(strides, scales=(scale,), ratios=(1.0,))
        self.coder = replace(coder or DeltaCoder(), max_ratio=1e6, clip=False)
        self.shape_assigner = ApproxMaxIoUAssigner(rule)
        self.shape_sampler = sampler or RandomSampler(num=256, pos_fraction=0.5)
        self.location_assigner = RegionAssigner(strides, scale, core, ring)
        self.location_loss, self.shape_loss = location_loss or FocalLoss(), shape_loss or BoundedIoULoss()

    def shaped(self, squares: Tensor, shapes: Tensor) -> Tensor:
        """(..., 4) squares with (..., 2) predicted widths and heights to (..., 4) anchors."""
        return self.coder.decode(squares, torch.cat((torch.zeros_like(shapes), shapes), dim=-1))

    def anchors(self, shapes: Sequence[Tensor]) -> list[Tensor]:
        """(B, P, 4) anchors of each level from its (B, 2, H, W) shapes; no gradient flows back."""
        squares = self.squares(feature_sizes(shapes), shapes[0].device)
        return [
            self.shaped(square.expand(shape.shape[0], -1, -1), by_prior(shape.detach(), 2))
            for square, shape in zip(squares, shapes, strict=True)
        ]

    def usable(self, sizes: Sequence[tuple[int, int]], images: ImageBatch) -> Tensor:
        """(P,) bool: the location's cell lies inside the batch."""
        return torch.cat(self.squares.valid(sizes, images.padded_size, images.pixels.device))

    def placed(self, locations: Tensor) -> Tensor:
        """(B, 1, H, W) logits of the locations to (B, H, W) bool: an anchor is placed there."""
        return locations[:, 0].sigmoid() >= self.least_score

    def loss(
        self, shapes: Sequence[Tensor], locations: Sequence[Tensor], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """Loss terms of where anchors stand and which shape they have."""
        sizes = feature_sizes(shapes)
        squares = torch.cat(self.squares(sizes, shapes[0].device))
        sampled = torch.cat(self.sampled(sizes, shapes[0].device)).reshape(len(squares), -1, 4)
        usable = self.usable(sizes, images)
        pred, wanted, count = [], [], 0
        for target, own in zip(targets, all_by_prior(shapes, 2), strict=True):
            assignment = self.shape_assigner(sampled, usable, target.boxes)
            positive, negative = self.shape_sampler(assignment)
            count += max(len(positive), 1) + max(len(negative), 1)
            pred.append(self.shaped(squares[positive], own[positive]))
            wanted.append(target.boxes[assignment.matched[positive]])
        owners = torch.stack([self.location_assigner(sizes, target.boxes).matched for target in targets])
        # Background weighs little, since there is much of it; the ring around objects not at all.
        weights = torch.where(owners >= 0, 1.0, torch.where(owners == BACKGROUND, 0.1, 0.0))
        # As published, the score of a location is that of not being the middle of an object: classes being counted
        # from 0 on, the label 1 of the middles means background to the focal loss.
        labels = (owners >= 0).long()
        logits = all_by_prior(locations, 1)
        return {
            "loss_anchor_shape": self.shape_loss(torch.cat(pred), torch.cat(wanted), None, count),
            "loss_anchor_loc": self.location_loss(
                logits.flatten(0, 1), labels.flatten(), weights.flatten(), owners.numel() / 200
            ),
        }


def guided_losses(
    guide: AnchorGuide,
    outputs: tuple[list[Tensor], ...],
    images: ImageBatch,
    targets: Sequence[Targets],
    *,
    num_classes: int,
    assigner: Assign,
    sampler: Sampler,
    coder: BoxCoder,
    class_loss: Callable[..., Tensor],
    box_loss: BoxLoss,
    count_negatives: bool,
) -> tuple[Tensor, Tensor]:
    """Classification and regression loss on the guided anchors; both are divided by the number of positives, and
    negatives where ``count_negatives``."""
    logits, codes, shapes, _ = outputs
    anchors = torch.cat(guide.anchors(shapes), dim=1)
    usable = guide.usable(feature_sizes(shapes), images)
    wanted = batch_targets(
        anchors,
        usable.expand(len(anchors), -1),
        targets,
        num_classes=num_classes,
        assign=assigner,
        sampler=sampler,
        coder=coder,
        box_loss=box_loss,
    )
    return anchor_losses(
        all_by_prior(logits, num_classes),
        all_by_prior(codes, 4),
        anchors,
        wanted,
        class_loss=class_loss,
        box_loss=box_loss,
        coder=coder,
        normalizer=wanted.positives + (wanted.negatives if count_negatives else 0),
    )


class GARPNHead(DenseHead):
    """Region proposal network on guided anchors; outputs are (logits, codes, shapes, locations) of each level.

    logits: (B, 1, H, W), by sigmoid. codes: (B, 4, H, W). shapes: (B, 2, H, W). locations: (B, 1, H, W), by sigmoid.
    training and testing: how proposals are made in either mode.
    """

    def __init__(
        self,
        *,
        channels: int = 256,
        guide: AnchorGuide | None = None,
        offset_groups: int = 4,
        coder: BoxCoder | None = None,
        assigner: Assign = PROPOSAL_RULE,
        sampler: Sampler | None = None,
        class_loss: BinaryCrossEntropy | None = None,
        box_loss: BoxLoss | None = None,
        training: ProposalSettings | None = None,
        testing: ProposalSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = 1
        self.guide = guide or AnchorGuide(
            strides=(4, 8, 16, 32, 64), scale=8, rule=PROPOSAL_RULE, coder=DeltaCoder(stds=(0.07, 0.07, 0.14, 0.14))
        )
        self.coder = coder or DeltaCoder(stds=(0.07, 0.07, 0.11, 0.11))
        self.assigner, self.sampler = assigner, sampler or RandomSampler(num=256, pos_fraction=0.5)
        self.class_loss, self.box_loss = class_loss or BinaryCrossEntropy(), box_loss or SmoothL1Loss()
        self.train_proposals = training or ProposalSettings(candidates_per_level=2000)
        self.test_proposals = testing or ProposalSettings()
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_loc = nn.Conv2d(channels, 1, 1)
        self.conv_shape = nn.Conv2d(channels, 2, 1)
        self.conv_cls = MaskedConv2d(channels, 1, 1)
        self.conv_reg = MaskedConv2d(channels, 4, 1)
        init_normal(self)
        nn.init.constant_(self.conv_loc.bias, bias_for_prior(0.01))  # type: ignore[arg-type]
        self.feature_adaption = FeatureAdaption(2, channels, offset_groups)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        hidden = [self.rpn_conv(x).relu() for x in features]
        locations, shapes = [self.conv_loc(x) for x in hidden], [self.conv_shape(x) for x in hidden]
        logits, codes = [], []
        for x, shape, location in zip(hidden, shapes, locations, strict=True):
            x = self.feature_adaption(x, shape.detach())
            mask = None if self.training else self.guide.placed(location)
            logits.append(self.conv_cls(x, mask))
            codes.append(self.conv_reg(x, mask))
        return logits, codes, shapes, locations

    def outputs(self, features: Sequence[Tensor], images: ImageBatch) -> tuple[list[Tensor], ...]:
        """Raw outputs, in float32."""
        return full_precision(self(features))

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        loss_cls, loss_bbox = guided_losses(
            self.guide,
            outputs,
            images,
            as_objects(targets),
            num_classes=1,
            assigner=self.assigner,
            sampler=self.sampler,
            coder=self.coder,
            class_loss=self.class_loss,
            box_loss=self.box_loss,
            count_negatives=True,
        )
        guided = self.guide.loss(outputs[2], outputs[3], images, targets)
        return {"loss_rpn_cls": loss_cls, "loss_rpn_bbox": loss_bbox, **guided}

    def propose(self, outputs: tuple[list[Tensor], ...], images: ImageBatch) -> list[Proposals]:
        """Proposals of each image in batch pixels, by the settings of the current mode; no gradient flows back."""
        settings = self.train_proposals if self.training else self.test_proposals
        logits, codes, shapes, locations = outputs
        masks = None if self.training else [self.guide.placed(level.detach()).flatten(1) for level in locations]
        return anchor_proposals(logits, codes, self.guide.anchors(shapes), images, self.coder, settings, masks)


class GARetinaHead(DenseHead):
    """RetinaNet's head on guided anchors; outputs are (logits, codes, shapes, locations) of each level.

    logits: (B, K, H, W), by sigmoid. codes: (B, 4, H, W). shapes: (B, 2, H, W). locations: (B, 1, H, W), by sigmoid.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower = TOWER,
        guide: AnchorGuide | None = None,
        offset_groups: int = 4,
        coder: BoxCoder | None = None,
        assigner: Assign | None = None,
        class_loss: FocalLoss | None = None,
        box_loss: BoxLoss | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.guide = guide or AnchorGuide(
            strides=STRIDES, scale=4, rule=MaxIoUAssigner(positive=0.5, negative=0.4, min_positive=0.4)
        )
        self.coder = coder or DeltaCoder()
        self.assigner, self.sampler = assigner or MaxIoUAssigner(positive=0.5, negative=0.5), AllSampler()
        self.class_loss, self.box_loss = class_loss or FocalLoss(), box_loss or SmoothL1Loss(beta=0.04)
        channels = towers.channels
        self.cls_convs = towers()
        self.reg_convs = towers()
        self.conv_loc = nn.Conv2d(channels, 1, 1)
        self.conv_shape = nn.Conv2d(channels, 2, 1)
        self.retina_cls = MaskedConv2d(channels, num_classes, 3, padding=1)
        self.retina_reg = MaskedConv2d(channels, 4, 3, padding=1)
        init_normal(self)
        for layer in (self.conv_loc, self.retina_cls):
            nn.init.constant_(layer.bias, bias_for_prior(0.01))  # type: ignore[arg-type]
        self.feature_adaption_cls = FeatureAdaption(2, channels, offset_groups)
        self.feature_adaption_reg = FeatureAdaption(2, channels, offset_groups)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        logits, codes, shapes, locations = [], [], [], []
        for x in features:
            for_class, for_box = self.cls_convs(x), self.reg_convs(x)
            location, shape = self.conv_loc(for_class), self.conv_shape(for_box)
            mask = None if self.training else self.guide.placed(location)
            logits.append(self.retina_cls(self.feature_adaption_cls(for_class, shape.detach()), mask))
            codes.append(self.retina_reg(self.feature_adaption_reg(for_box, shape.detach()), mask))
            shapes.append(shape)
            locations.append(location)
        return logits, codes, shapes, locations

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        loss_cls, loss_bbox = guided_losses(
            self.guide,
            outputs,
            images,
            targets,
            num_classes=self.num_classes,
            assigner=self.assigner,
            sampler=self.sampler,
            coder=self.coder,
            class_loss=self.class_loss,
            box_loss=self.box_loss,
            count_negatives=False,
        )
        return {
            "loss_cls": loss_cls,
            "loss_bbox": loss_bbox,
            **self.guide.loss(outputs[2], outputs[3], images, targets),
        }

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, codes, shapes, locations = outputs
        anchors = self.guide.anchors(shapes)
        scores = [
            by_prior(level, self.num_classes).sigmoid() * self.guide.placed(location).flatten(1)[..., None]
            for level, location in zip(logits, locations, strict=True)
        ]
        # Every image has its own anchors, which travel with the codes.
        both = [torch.cat((own, by_prior(level, 4)), dim=2) for own, level in zip(anchors, codes, strict=True)]
        return dense_detections(
            scores,
            both,
            self.guide.squares(feature_sizes(logits), logits[0].device),
            lambda _, rows, size: self.coder.decode(rows[:, :4], rows[:, 4:], size),
            images,
            test,
        )


def ga_rpn(num_classes: int, *, backbone: Callable[[], ResNet]) -> RPN:
    """GA-RPN on a backbone with four stages; ``num_classes`` plays no part, since proposals have no class."""
    body = backbone()
    head = GARPNHead(testing=ProposalSettings(candidates_per_level=2000))
    return RPN(backbone=body, neck=FPN(body.out_channels), rpn_head=head)


def ga_faster_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Faster R-CNN on a backbone with four stages, with fewer and better proposals from GA-RPN and a second stage that
    is stricter for them (section 3.5)."""
    return faster_rcnn(
        num_classes,
        backbone=backbone,
        rpn_head=partial(
            GARPNHead,
            training=ProposalSettings(candidates_per_level=2000, max_per_image=300),
            testing=ProposalSettings(max_per_image=300),
        ),
        bbox_head=partial(BoxHead, coder=DeltaCoder(stds=(0.05, 0.05, 0.1, 0.1))),
        roi_head=partial(
            StandardRoIHead,
            assigner=MaxIoUAssigner(0.6, 0.6, min_positive=0.6, match_low_quality=False),
            sampler=RandomSampler(num=256, pos_fraction=0.25, add_ground_truth=True),
        ),
        test=RoITest(score_threshold=0.001),
    )


def ga_retinanet(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """GA-RetinaNet on a backbone with four stages."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, start=1, extra="input"),
        bbox_head=GARetinaHead(num_classes=num_classes),
        test=DenseTest(),
    )
