"""Cascade RPN: Vu et al., "Cascade RPN: Delving into High-Quality Region Proposal Network with Adaptive Convolution".

A region proposal network in two stages with one anchor at a location: the first moves the anchors of objects' middles,
the second looks at each location with a convolution whose taps lie in the moved anchor, scores it, and moves it again.
Fast and Faster R-CNN on these proposals have a second stage that is stricter.

Shape letters: B images, C channels, H x W locations of a level, P locations of all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..assigners import IGNORED, MaxIoUAssigner
from ..assigners.region import RegionAssigner
from ..backbones.resnet import ResNet
from ..coders import BoxCoder, DeltaCoder
from ..dense.anchor_targets import anchor_losses, batch_targets
from ..dense.head import all_by_prior, by_prior, feature_sizes
from ..dense.points import kernel_taps
from ..detectors.base import full_precision
from ..detectors.two_stage import TwoStageDetector
from ..layers import ConvModule
from ..layers.deform import GuidedDeformConv2d
from ..layers.init import init_normal
from ..losses import BinaryCrossEntropy, CrossEntropy, IoULoss, SmoothL1Loss
from ..necks.fpn import FPN
from ..priors import anchor_grid, grid_points
from ..roi.box_head import BoxHead
from ..roi.standard import StandardRoIHead
from ..samplers import RandomSampler, Sampler
from ..settings import ProposalSettings, RoITest
from ..structures import ImageBatch, OpenBatch, Proposals, Targets
from .fast_rcnn import fast_rcnn
from .faster_rcnn import faster_rcnn
from .rpn import RPN, anchor_proposals, as_objects

STRIDES = (4, 8, 16, 32, 64)
SCALE = 8


class FirstStage(nn.Module):
    """Moves the squares at every location: (B, C, H, W) to the features of the next stage, of the same shape, and
    (B, 4, H, W) codes."""

    def __init__(self, channels: int, dilation: int = 3) -> None:
        super().__init__()
        self.rpn_conv = ConvModule(
            channels, channels, 3, padding=dilation, dilation=dilation, activation=nn.ReLU(inplace=True)
        )
        self.rpn_reg = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.rpn_conv(x)
        return x, self.rpn_reg(x)


class AdaptiveConv(nn.Module):
    """A 3 x 3 convolution whose taps are spread over the anchor at each location (section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = GuidedDeformConv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, anchors: Tensor, stride: int) -> Tensor:
        """(B, C, H, W) and (B, H W, 4) anchors in pixels to (B, C, H, W)."""
        size = (int(x.shape[2]), int(x.shape[3]))
        points = grid_points(size, 1, x.device)
        shift = (anchors[..., :2] + anchors[..., 2:]) / (2 * stride) - points
        spread = (anchors[..., 2:] - anchors[..., :2]) / (2 * stride) - 1
        taps = kernel_taps(3, x.device)
        # Offsets are given as y and x, tap by tap.
        offsets = shift.flip(-1)[:, :, None] + spread.flip(-1)[:, :, None] * taps
        return self.conv(x, offsets.flatten(2).transpose(1, 2).reshape(x.shape[0], -1, *size))


class SecondStage(nn.Module):
    """Scores and moves the anchors of the first stage: (B, C, H, W) and (B, H W, 4) anchors to (B, 1, H, W) logits and
    (B, 4, H, W) codes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rpn_conv = AdaptiveConv(channels)
        self.rpn_cls = nn.Conv2d(channels, 1, 1)
        self.rpn_reg = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor, anchors: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        x = self.rpn_conv(x, anchors, stride).relu()
        return self.rpn_cls(x), self.rpn_reg(x)


class CascadeRPNHead(nn.Module):
    """Both stages; outputs are (first codes, anchors, logits, codes) of each level.

    first codes and codes: (B, 4, H, W). anchors: (B, H W, 4), what the first stage makes of the squares, without
    gradient. logits: (B, 1, H, W), by sigmoid. dilation: of the first stage's convolution. scale: side of the squares
    in strides. box_weight and class_weight: of the losses. proposals: how proposals are
    made, in either mode.
    """

    def __init__(
        self,
        *,
        channels: int = 256,
        dilation: int = 3,
        strides: tuple[int, ...] = STRIDES,
        scale: float = SCALE,
        first_coder: BoxCoder | None = None,
        coder: BoxCoder | None = None,
        first_assigner: RegionAssigner | None = None,
        assigner: MaxIoUAssigner | None = None,
        sampler: Sampler | None = None,
        box_weight: float,
        class_weight: float,
        proposals: ProposalSettings,
    ) -> None:
        super().__init__()
        self.squares = anchor_grid(strides, scales=(scale,), ratios=(1.0,))
        self.first_coder = first_coder or DeltaCoder(stds=(0.1, 0.1, 0.5, 0.5))
        self.coder = coder or DeltaCoder(stds=(0.05, 0.05, 0.1, 0.1))
        self.first_assigner = first_assigner or RegionAssigner(strides, scale, neighbours_win=True)
        self.assigner = assigner or MaxIoUAssigner(positive=0.7, negative=0.7, min_positive=0.3)
        self.sampler = sampler or RandomSampler(num=256, pos_fraction=0.5)
        self.box_loss, self.class_loss = IoULoss(shape="linear", weight=box_weight), BinaryCrossEntropy(class_weight)
        self.test_proposals = proposals
        self.stages = nn.ModuleList([FirstStage(channels, dilation), SecondStage(channels)])
        init_normal(self)

    def outputs(self, features: Sequence[Tensor], images: ImageBatch) -> tuple[list[Tensor], ...]:
        """Raw outputs, in float32; moved anchors end at the borders of their image."""
        first, second = self.stages
        squares = self.squares(feature_sizes(features), features[0].device)
        first_codes, anchors, logits, codes = [], [], [], []
        for x, square, stride in zip(features, squares, self.first_assigner.strides, strict=True):
            x, code = first(x)
            first_codes.append(full_precision(code))
            moved = by_prior(first_codes[-1].detach(), 4)
            anchors.append(self.moved(square, moved, images))
            logit, code = second(x, anchors[-1], stride)
            logits.append(full_precision(logit))
            codes.append(full_precision(code))
        return first_codes, anchors, logits, codes

    def moved(self, squares: Tensor, codes: Tensor, images: ImageBatch) -> Tensor:
        """(P, 4) squares and the (B, P, 4) codes of each image to (B, P, 4) anchors."""
        if isinstance(images, OpenBatch):
            every = squares.expand(codes.shape[0], -1, -1).flatten(0, 1)
            size = images.each_size(squares.shape[0])
            return self.first_coder.decode(every, codes.flatten(0, 1), size).reshape(codes.shape)
        own = [self.first_coder.decode(squares, row, size) for row, size in zip(codes, images.sizes, strict=True)]
        return torch.stack(own)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """Loss terms of both stages."""
        first_codes, anchors, logits, codes = outputs
        sizes = feature_sizes(logits)
        usable = torch.cat(self.squares.valid(sizes, images.padded_size, images.pixels.device))
        squares = torch.cat(self.squares(sizes, images.pixels.device))
        pred, wanted = [], []
        for target, own in zip(targets, all_by_prior(first_codes, 4), strict=True):
            matched = self.first_assigner(sizes, target.boxes).matched.masked_fill(~usable, IGNORED)
            positive = matched >= 0
            pred.append(self.first_coder.decode(squares[positive], own[positive]))
            wanted.append(target.boxes[matched[positive]])
        count = len(targets) * len(squares) / 200
        moved = torch.cat(anchors, dim=1)
        second = batch_targets(
            moved,
            usable.expand(len(moved), -1),
            as_objects(targets),
            num_classes=1,
            assign=self.assigner,
            sampler=self.sampler,
            coder=self.coder,
            box_loss=self.box_loss,
        )
        loss_cls, loss_bbox = anchor_losses(
            all_by_prior(logits, 1),
            all_by_prior(codes, 4),
            moved,
            second,
            class_loss=self.class_loss,
            box_loss=self.box_loss,
            coder=self.coder,
            normalizer=second.positives + second.negatives,
        )
        return {
            "s0.loss_rpn_reg": self.box_loss(torch.cat(pred), torch.cat(wanted), None, count),
            "s1.loss_rpn_cls": loss_cls,
            "s1.loss_rpn_reg": loss_bbox,
        }

    def propose(self, outputs: tuple[list[Tensor], ...], images: ImageBatch) -> list[Proposals]:
        """Proposals of each image in batch pixels; no gradient flows back."""
        _, anchors, logits, codes = outputs
        return anchor_proposals(logits, codes, anchors, images, self.coder, self.test_proposals)


def crpn(num_classes: int, *, backbone: Callable[[], ResNet]) -> RPN:
    """Cascade RPN on a backbone with four stages; ``num_classes`` plays no part, since proposals have no class."""
    body = backbone()
    head = CascadeRPNHead(
        box_weight=10.0,
        class_weight=1.0,
        proposals=ProposalSettings(candidates_per_level=2000, max_per_image=2000, nms_threshold=0.8),
    )
    return RPN(backbone=body, neck=FPN(body.out_channels), rpn_head=head)


bbox_head = partial(
    BoxHead,
    coder=DeltaCoder(stds=(0.04, 0.04, 0.08, 0.08)),
    class_loss=CrossEntropy(weight=1.5),
    box_loss=SmoothL1Loss(),
)


def strict_roi_head() -> Callable[..., StandardRoIHead]:
    """The second stage for better proposals (section 4.1)."""
    return partial(
        StandardRoIHead,
        assigner=MaxIoUAssigner(0.65, 0.65, min_positive=0.65, match_low_quality=False),
        sampler=RandomSampler(num=256, pos_fraction=0.25, add_ground_truth=True),
    )


def crpn_fast_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Fast R-CNN on a backbone with four stages, for proposals of Cascade RPN."""
    return fast_rcnn(
        num_classes,
        backbone=backbone,
        bbox_head=bbox_head,
        roi_head=strict_roi_head(),
        test=RoITest(score_threshold=0.001),
    )


def crpn_faster_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Faster R-CNN with Cascade RPN on a backbone with four stages."""
    return faster_rcnn(
        num_classes,
        backbone=backbone,
        rpn_head=partial(
            CascadeRPNHead,
            box_weight=7.0,
            class_weight=0.7,
            proposals=ProposalSettings(max_per_image=300, nms_threshold=0.8),
        ),
        bbox_head=bbox_head,
        roi_head=strict_roi_head(),
        test=RoITest(score_threshold=0.001),
    )
