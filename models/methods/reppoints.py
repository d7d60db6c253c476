"""RepPoints: Yang et al., "RepPoints: Point Set Representation for Object Detection".

Every location of five pyramid levels predicts nine points for the object around it, and from the features at those
points their refinement and the object's class. A box is derived from the points, for training and for the result.

Shape letters: B images, L levels, H x W locations of a level, P points of the grids of all levels, K classes,
N objects of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assigners import IGNORED, Assignment, MaxIoUAssigner, PointAssigner
from ..backbones.resnet import ResNet
from ..boxes import clip_boxes
from ..dense.anchor_targets import batch_objects
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.points import kernel_taps, level_points, per_point, scaled_gradient
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..layers import Norm
from ..layers.deform import GuidedDeformConv2d
from ..layers.init import bias_for_prior, init_normal
from ..losses import FocalLoss, SmoothL1Loss
from ..necks.fpn import FPN
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets

STRIDES = (8, 16, 32, 64, 128)
BASE_SCALE = 4
"""Side of the square that a location starts from, in strides."""
TOWER = Tower(depth=3, norm=None)

AssignFirst = Callable[[Tensor, Tensor, Tensor], Assignment]


@dataclass(frozen=True)
class SquareAssigner:
    """(P, 2) points of (P,) strides to (N, 4) boxes, by the overlap of the squares around the points.

    scale: side of the squares in strides. rule: how overlaps decide.
    """

    scale: float = BASE_SCALE
    rule: MaxIoUAssigner = field(default_factory=lambda: MaxIoUAssigner(positive=0.5, negative=0.4))

    def __call__(self, points: Tensor, strides: Tensor, boxes: Tensor) -> Assignment:
        half = strides[:, None] * (self.scale / 2)
        return self.rule(torch.cat((points - half, points + half), dim=1), boxes)


def surrounding_box(points: Tensor) -> Tensor:
    """(B, n, 2, H, W) points, y first, to the (B, 4, H, W) boxes around them ("min-max function")."""
    return torch.cat((points.amin(dim=1).flip(1), points.amax(dim=1).flip(1)), dim=1)


def moment_box(points: Tensor, log_factors: Tensor) -> Tensor:
    """(B, n, 2, H, W) points, y first, to (B, 4, H, W) boxes around their mean, as large as their standard deviation
    times learnt factors of the width and the height ("moment-based function")."""
    centre = points.mean(dim=1).flip(1)
    # Points that lie on one spot have no deviation, whose root would have no finite gradient.
    half = points.var(dim=1).clamp(min=1e-12).sqrt().flip(1) * log_factors.exp().view(1, 2, 1, 1)
    return torch.cat((centre - half, centre + half), dim=1)


def grid_in_box(codes: Tensor, boxes: Tensor, side: int = 3) -> tuple[Tensor, Tensor]:
    """Move (B, 4, H, W) boxes by (B, 4, H, W) codes, and put side x side points on each in a regular grid.

    Returns: (B, 2 n, H, W) points, y first and row by row, and the moved boxes.
    """
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    moved = size * codes[:, 2:].exp()
    low = centre + size * codes[:, :2] - moved / 2
    steps = torch.linspace(0, 1, side, device=codes.device).view(1, side, 1, 1, 1)
    x, y = (low[:, None] + moved[:, None] * steps).unbind(dim=2)
    grid = torch.stack((y[:, :, None].expand(-1, -1, side, -1, -1), x[:, None].expand(-1, side, -1, -1, -1)), dim=3)
    return grid.flatten(1, 3), torch.cat((low, low + moved), dim=1)


class RepPointsHead(DenseHead):
    """Two towers and two sets of points; outputs are (logits, first, refined) of each level.

    logits: (B, K, H, W), by sigmoid. first and refined: (B, 2 n, H, W), y and x of n points from the location, in
    strides.

    towers: builds each of the two. point_channels: of the layers behind them. points_per_side: root of n, odd.
    strides: of the levels. base_scale: side of the square that a location starts from, in strides. gradient_factor:
    of the gradient that flows from the refinement into the first points.

    box_from: what turns points into a box, ``moment``, ``minmax``, or ``partial_minmax`` of the first four. grid: the
    points lie in a regular grid on a box, and it is this box that is predicted. assign_first: which locations learn
    the first points.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower = TOWER,
        point_channels: int = 256,
        points_per_side: int = 3,
        strides: Sequence[int] = STRIDES,
        base_scale: float = BASE_SCALE,
        gradient_factor: float = 0.1,
        box_from: str = "moment",
        grid: bool = False,
        assign_first: AssignFirst | None = None,
        assign_refined: MaxIoUAssigner | None = None,
        class_loss: FocalLoss | None = None,
        first_loss: SmoothL1Loss | None = None,
        refined_loss: SmoothL1Loss | None = None,
    ) -> None:
        super().__init__()
        if points_per_side % 2 != 1:
            raise ValueError(f"points_per_side: expected an odd number, found {points_per_side}")
        if box_from not in ("moment", "minmax", "partial_minmax"):
            raise ValueError(f"box_from: expected 'moment', 'minmax' or 'partial_minmax', found {box_from!r}")
        self.num_classes, self.box_from, self.grid = num_classes, box_from, grid
        self.points_per_side, self.strides, self.base_scale = points_per_side, tuple(strides), base_scale
        self.gradient_factor = gradient_factor
        self.assign_first = assign_first or PointAssigner(scale=BASE_SCALE)
        self.assign_refined = assign_refined or MaxIoUAssigner(positive=0.5, negative=0.4)
        self.class_loss = class_loss or FocalLoss()
        self.first_loss = first_loss or SmoothL1Loss(beta=0.11, weight=0.5)
        self.refined_loss = refined_loss or SmoothL1Loss(beta=0.11)
        self.moment_transfer = nn.Parameter(torch.zeros(2)) if box_from == "moment" else None
        self.cls_convs = towers()
        self.reg_convs = towers()
        channels, outputs = towers.channels, 4 if grid else 2 * points_per_side**2
        kernel, padding = points_per_side, points_per_side // 2
        self.reppoints_cls_conv = GuidedDeformConv2d(channels, point_channels, kernel, padding=padding)
        self.reppoints_cls_out = nn.Conv2d(point_channels, num_classes, 1)
        self.reppoints_pts_init_conv = nn.Conv2d(channels, point_channels, 3, padding=1)
        self.reppoints_pts_init_out = nn.Conv2d(point_channels, outputs, 1)
        self.reppoints_pts_refine_conv = GuidedDeformConv2d(channels, point_channels, kernel, padding=padding)
        self.reppoints_pts_refine_out = nn.Conv2d(point_channels, outputs, 1)
        init_normal(self)
        nn.init.constant_(self.reppoints_cls_out.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        logits, firsts, refineds = [], [], []
        taps = kernel_taps(self.points_per_side, features[0].device).view(1, -1, 1, 1)
        for x in features:
            scored, located = self.cls_convs(x), self.reg_convs(x)
            first = self.reppoints_pts_init_out(F.relu(self.reppoints_pts_init_conv(located))).float()
            box = first
            if self.grid:
                half = self.base_scale / 2
                square = first.new_tensor((-half, -half, half, half)).view(1, 4, 1, 1)
                first, box = grid_in_box(first, square, self.points_per_side)
            offsets = scaled_gradient(first, self.gradient_factor) - taps
            logits.append(self.reppoints_cls_out(F.relu(self.reppoints_cls_conv(scored, offsets))))
            refined = self.reppoints_pts_refine_out(F.relu(self.reppoints_pts_refine_conv(located, offsets))).float()
            if self.grid:
                refineds.append(grid_in_box(refined, box.detach(), self.points_per_side)[0])
            else:
                refineds.append(refined + first.detach())
            firsts.append(first)
        return logits, firsts, refineds

    def to_boxes(self, points: Tensor) -> Tensor:
        """(B, 2 n, H, W) points to (B, 4, H, W) xyxy boxes, in the same units."""
        split = points.unflatten(1, (-1, 2))
        if self.moment_transfer is not None:
            return moment_box(split, scaled_gradient(self.moment_transfer, 0.01))
        return surrounding_box(split if self.box_from == "minmax" else split[:, :4])

    def boxes_of(self, points: Sequence[Tensor], locations: Sequence[Tensor]) -> Tensor:
        """(B, P, 4) xyxy boxes in pixels from the points of each level."""
        return torch.cat(
            [
                by_prior(self.to_boxes(level), 4) * stride + location.repeat(1, 2)
                for level, stride, location in zip(points, self.strides, locations, strict=True)
            ],
            dim=1,
        )

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, first, refined = outputs
        levels = level_points(feature_sizes(logits), self.strides, logits[0].device, offset=0)
        points, strides = torch.cat(levels), per_point(self.strides, levels)
        first_boxes, refined_boxes = self.boxes_of(first, levels), self.boxes_of(refined, levels)
        first_assigned = [self.assign_first(points, strides, target.boxes) for target in targets]
        refined_assigned = [
            self.assign_refined(boxes, target.boxes)
            for boxes, target in zip(first_boxes.detach(), targets, strict=True)
        ]
        first_labels, first_wanted = batch_objects(first_assigned, targets, self.num_classes)
        labels, wanted = batch_objects(refined_assigned, targets, self.num_classes)
        unit = self.base_scale * strides
        counted = torch.stack([one.matched != IGNORED for one in refined_assigned]).float()
        flat = all_by_prior(logits, self.num_classes).flatten(0, 1)
        return {
            "loss_cls": self.class_loss(flat, labels.flatten(), counted.flatten(), self.positives(labels)),
            "loss_pts_init": self.located(self.first_loss, first_boxes, first_wanted, first_labels, unit),
            "loss_pts_refine": self.located(self.refined_loss, refined_boxes, wanted, labels, unit),
        }

    def positives(self, labels: Tensor) -> Tensor:
        """How many of (B, P) labels are no background, at least one counted for every image."""
        return (labels < self.num_classes).sum(dim=1).clamp(min=1).sum()

    def located(self, loss: SmoothL1Loss, boxes: Tensor, wanted: Tensor, labels: Tensor, unit: Tensor) -> Tensor:
        """The loss of (B, P, 4) boxes where (B, P) labels are no background, in (P,) units of pixels."""
        positive = labels < self.num_classes
        units = unit.expand_as(labels)[positive][:, None]
        return loss(boxes[positive] / units, wanted[positive] / units, None, self.positives(labels))

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, _, refined = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [by_prior(self.to_boxes(level), 4) * stride for level, stride in zip(refined, self.strides, strict=True)],
            level_points(feature_sizes(logits), self.strides, logits[0].device, offset=0),
            lambda points, offsets, size: clip_boxes(points.repeat(1, 2) + offsets, size),
            images,
            test,
        )


def reppoints(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    norm: Norm | None = None,
    box_from: str = "moment",
    grid: bool = False,
    assign_first: AssignFirst | None = None,
) -> SingleStageDetector:
    """RepPoints on a backbone with four stages; ``norm`` follows the convolutions of pyramid and towers, the other
    arguments are those of ``RepPointsHead``."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, start=1, extra="input", norm=norm),
        bbox_head=RepPointsHead(
            num_classes=num_classes,
            towers=replace(TOWER, norm=norm),
            box_from=box_from,
            grid=grid,
            assign_first=assign_first,
        ),
        test=DenseTest(),
    )
