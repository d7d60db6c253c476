"""Objects as pairs of corners: pooling, targets, losses and pairing that CornerNet and its descendants share.

Shape letters: B images, C channels, K classes, H x W places of a map, N objects of all images, M places that hold a
corner, k best corners of one kind, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.corner_pool import corner_pool
from ..layers.conv import ConvModule
from ..layers.init import bias_for_prior
from ..layers.norm import BN
from ..losses.corners import GaussianFocalLoss
from ..losses.regression import SmoothL1Loss
from ..settings import CornerTest
from ..structures import Detections, ImageBatch, Targets
from .postprocess import suppress

MAX_PAIRS = 1000
"""Pairs of an image that are candidates for suppression."""
MIN_OVERLAP = 0.3
"""IoU with the object that boxes from corners within a target's Gaussian have at least (CornerNet, section 3.2)."""


class CornerPool(nn.Module):
    """Corner pooling module (CornerNet, section 3.4): (B, C, H, W) to the same shape.

    directions: of the two poolings, ("top", "left") for upper left and ("bottom", "right") for lower right corners.
    """

    def __init__(self, channels: int, directions: tuple[str, str], hidden: int = 128) -> None:
        super().__init__()
        self.directions = directions
        relu = nn.ReLU(inplace=True)
        self.direction1_conv = ConvModule(channels, hidden, 3, padding=1, norm=BN, activation=relu)
        self.direction2_conv = ConvModule(channels, hidden, 3, padding=1, norm=BN, activation=relu)
        self.aftpool_conv = ConvModule(hidden, channels, 3, padding=1, norm=BN)
        self.conv1 = ConvModule(channels, channels, 1, norm=BN)
        self.conv2 = ConvModule(channels, channels, 3, padding=1, norm=BN, activation=relu)

    def forward(self, x: Tensor) -> Tensor:
        first = corner_pool(self.direction1_conv(x), self.directions[0])
        second = corner_pool(self.direction2_conv(x), self.directions[1])
        return self.conv2(F.relu(self.aftpool_conv(first + second) + self.conv1(x)))


def corner_pools(levels: int, channels: int, directions: tuple[str, str]) -> nn.ModuleList:
    """The corner pooling module of every level."""
    return nn.ModuleList(CornerPool(channels, directions) for _ in range(levels))


def branches(levels: int, in_channels: int, out_channels: int, prior: float | None = None) -> nn.ModuleList:
    """A 3 x 3 and a 1 x 1 convolution for every level; ``prior``: the probability that sigmoid gives at first."""
    made = nn.ModuleList()
    for _ in range(levels):
        last = ConvModule(in_channels, out_channels, 1)
        if prior is not None:
            nn.init.constant_(last.conv.bias, bias_for_prior(prior))  # type: ignore[arg-type]
        first = ConvModule(in_channels, in_channels, 3, padding=1, activation=nn.ReLU(inplace=True))
        made.append(nn.Sequential(first, last))
    return made


# ---------------------------------------------------------------------------------------------------------------------
# Targets and losses
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objects:
    """The objects of a batch: the (N,) image and label of each and (N, 4) boxes, xyxy in places of the map."""

    image: Tensor
    labels: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class CornerTargets:
    """Where one kind of corner is.

    heat: (B, K, H, W), one at corners, falling off around them. x, y: (N,) int64 place of each object's corner.
    point: (N, 2) its exact x and y. owner: (M,) for each place that holds a corner the last object that has it there.
    """

    heat: Tensor
    x: Tensor
    y: Tensor
    point: Tensor
    owner: Tensor


def objects_on_map(targets: Sequence[Targets], images: ImageBatch, size: tuple[int, int]) -> Objects:
    """The objects of a batch on a map of (H, W) that covers the padded images."""
    height, width = images.padded_size
    device = images.pixels.device
    factor = torch.tensor((size[1] / width, size[0] / height) * 2, dtype=torch.float32, device=device)
    return Objects(
        image=torch.cat([torch.full_like(t.labels, i) for i, t in enumerate(targets)]),
        labels=torch.cat([t.labels for t in targets]),
        boxes=torch.cat([t.boxes for t in targets]).float() * factor,
    )


def gaussian_radius(size: Tensor, min_overlap: float) -> Tensor:
    """The largest shift of corners at which a box still overlaps the object enough.

    size: (N, 2) width and height. The least of three (N,) radii: both corners shifted the same way, both inwards, and
    both outwards, each the smaller root of a quadratic equation in the radius.
    """
    size = size.double()
    total, area = size.sum(dim=1), size.prod(dim=1)
    same = area * (1 - min_overlap) / (1 + min_overlap)
    same = (total - (total**2 - 4 * same).sqrt()) / 2
    inwards = (1 - min_overlap) * area
    inwards = (2 * total - (4 * total**2 - 16 * inwards).sqrt()) / 8
    outwards = 4 * min_overlap * (1 - min_overlap) * area
    outwards = (((2 * min_overlap * total) ** 2 + 4 * outwards).sqrt() - 2 * min_overlap * total) / (8 * min_overlap)
    return torch.minimum(torch.minimum(same, inwards), outwards)


def gaussians(x: Tensor, y: Tensor, radius: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) bumps of height one at (N,) places, cut off beyond the radius, which is three deviations."""
    dx = torch.arange(size[1], device=x.device) - x[:, None]
    dy = torch.arange(size[0], device=x.device) - y[:, None]
    spread = 2 * ((2 * radius + 1) / 6) ** 2
    squared = (dx**2)[:, None] + (dy**2)[:, :, None]
    inside = (dx.abs() <= radius[:, None])[:, None] & (dy.abs() <= radius[:, None])[:, :, None]
    return (-squared / spread[:, None, None]).exp() * inside


def corner_targets(objects: Objects, shape: tuple[int, int, int, int]) -> tuple[CornerTargets, CornerTargets]:
    """Targets of the upper left and of the lower right corners on maps of (B, K, H, W)."""
    batch, classes, height, width = shape
    boxes = objects.boxes
    radius = gaussian_radius((boxes[:, 2:] - boxes[:, :2]).ceil(), MIN_OVERLAP).long().clamp(min=0)
    targets = []
    for point in (boxes[:, :2], boxes[:, 2:]):
        x, y = point[:, 0].long().clamp(0, width - 1), point[:, 1].long().clamp(0, height - 1)
        heat = boxes.new_zeros(batch * classes, height, width)
        bumps = gaussians(x, y, radius, (height, width))
        plane = objects.image * classes + objects.labels
        heat.scatter_reduce_(0, plane[:, None, None].expand_as(bumps), bumps, "amax")
        # Of several objects with a corner at one place the last counts, on every device.
        place = (objects.image * height + y) * width + x
        last = torch.full((batch * height * width,), -1, dtype=torch.int64, device=boxes.device)
        last.scatter_reduce_(0, place, torch.arange(len(boxes), device=boxes.device), "amax")
        heat = heat.reshape(batch, classes, height, width)
        targets.append(CornerTargets(heat, x, y, point, last[last >= 0]))
    return targets[0], targets[1]


def values_at(values: Tensor, image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(B, C, H, W) map to its (N, C) values at places."""
    return values[image, :, y, x]


def heat_loss(logits: Sequence[Tensor], targets: Sequence[CornerTargets]) -> Tensor:
    """Mean of the focal losses of both kinds of corner, each divided by the number of its corners."""
    losses = [GaussianFocalLoss()(x, t.heat, (t.heat == 1).sum().clamp(min=1)) for x, t in zip(logits, targets)]
    return (losses[0] + losses[1]) / 2


def corner_loss(values: Tensor, wanted: Tensor, objects: Objects, target: CornerTargets, weight: float = 1.0) -> Tensor:
    """Smooth L1 loss of a (B, 2, H, W) map at corners of one kind, with (N, 2) targets; a mean over places."""
    owner = target.owner
    pred = values_at(values, objects.image[owner], target.x[owner], target.y[owner])
    return SmoothL1Loss(weight=weight)(pred, wanted[owner], None, max(len(owner), 1))


def offset_loss(offsets: Sequence[Tensor], objects: Objects, targets: Sequence[CornerTargets]) -> Tensor:
    """Mean of the losses of both kinds of corner: where in its place a corner lies (CornerNet, equations 2 and 3)."""
    losses = [
        corner_loss(values, t.point - torch.stack((t.x, t.y), dim=1), objects, t) for values, t in zip(offsets, targets)
    ]
    return (losses[0] + losses[1]) / 2


# ---------------------------------------------------------------------------------------------------------------------
# From maps to boxes
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corners:
    """The k best corners of one kind in each image, all (B, k): scores, labels, where they stand on the map (index),
    and their exact x and y there."""

    scores: Tensor
    labels: Tensor
    index: Tensor
    x: Tensor
    y: Tensor

    def gather(self, values: Tensor) -> Tensor:
        """(B, C, H, W) map to its (B, k, C) values at the corners."""
        values = values.flatten(2).transpose(1, 2)
        return values.gather(1, self.index[..., None].expand(-1, -1, values.shape[2]))


def best_corners(logits: Tensor, offsets: Tensor, test: CornerTest) -> Corners:
    """The corners whose score is the best around, from (B, K, H, W) logits and (B, 2, H, W) offsets."""
    heat = logits.sigmoid()
    kernel = test.local_maximum_kernel
    around = F.max_pool2d(heat, kernel, stride=1, padding=(kernel - 1) // 2)
    heat = (heat * (heat == around)).flatten(1)
    height, width = logits.shape[2:]
    scores, best = heat.topk(min(test.corner_topk, heat.shape[1]), dim=1)
    index = best % (height * width)
    corners = Corners(scores, best // (height * width), index, index % width, index // width)
    shift = corners.gather(offsets)
    return Corners(scores, corners.labels, index, corners.x + shift[..., 0], corners.y + shift[..., 1])


def in_image_frame(x: Tensor, y: Tensor, size: tuple[int, int], images: ImageBatch) -> tuple[Tensor, Tensor]:
    """(B, k) x and y on a map of (H, W) to pixels from each image's upper left corner, not below zero."""
    height, width = images.padded_size
    offset = torch.tensor([images.offset(i) for i in range(len(images))], dtype=x.dtype, device=x.device)
    x, y = x * (width / size[1]) - offset[:, :1], y * (height / size[0]) - offset[:, 1:]
    return x.clamp(min=0), y.clamp(min=0)


def paired_boxes(first: Corners, second: Corners, size: tuple[int, int], images: ImageBatch) -> Tensor:
    """(B, k, k, 4) boxes of every upper left with every lower right corner, in pixels from each image's upper left."""
    shape = (*first.x.shape, second.x.shape[1])
    x1, y1 = (v[:, :, None].expand(shape) for v in in_image_frame(first.x, first.y, size, images))
    x2, y2 = (v[:, None, :].expand(shape) for v in in_image_frame(second.x, second.y, size, images))
    return torch.stack((x1, y1, x2, y2), dim=-1)


def pair_detections(
    boxes: Tensor, first: Corners, second: Corners, fits: Tensor, images: ImageBatch, test: CornerTest
) -> list[Detections]:
    """Detections of each image from the best pairs of corners of the same class.

    boxes: (B, k, k, 4) in pixels from each image's upper left corner. fits: (B, k, k) bool, the two belong together.
    """
    scores = (first.scores[:, :, None] + second.scores[:, None]) / 2
    fits = fits & (first.labels[:, :, None] == second.labels[:, None])
    fits = fits & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    scores = torch.where(fits, scores, -1).flatten(1)
    scores, pair = scores.topk(min(MAX_PAIRS, scores.shape[1]), dim=1)
    boxes = boxes.flatten(1, 2).gather(1, pair[..., None].expand(-1, -1, 4))
    labels = first.labels.gather(1, pair // second.labels.shape[1])
    detections = []
    for index in range(len(images)):
        fit = scores[index] > test.score_threshold
        own, own_labels = boxes[index, fit] / boxes.new_tensor(images.scale(index) * 2), labels[index, fit]
        keep, kept_scores = suppress(
            own,
            scores[index, fit],
            own_labels,
            nms_threshold=test.nms_threshold,
            max_per_image=test.max_per_image,
            soft_nms=test.soft_nms,
        )
        detections.append(Detections(own[keep], kept_scores, own_labels[keep]))
    return detections
