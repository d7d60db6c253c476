"""PointRend: Kirillov et al., "PointRend: Image Segmentation as Rendering". Mask R-CNN whose mask branch makes a coarse
mask, then decides the most uncertain points of ever finer masks one by one, from the features at these points.

Shape letters: B images, R regions, Q positive ones, N objects of one image, C channels, S region size, M mask size,
K classes, P points, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..detectors.two_stage import TwoStageDetector
from ..layers import ConvModule
from ..layers.init import init_xavier
from ..layers.linear import fc_layers
from ..roi.box_head import BoxHead
from ..roi.mask_head import MaskHead
from ..roi.masks import RegionMasks, own_class
from ..roi.rois import Assign, SampledRegions, to_rois
from ..roi.standard import StandardRoIHead
from ..samplers import Sampler
from ..structures import Targets
from .mask_rcnn import mask_rcnn

STRIDE = 4
"""Stride of the finest level, the only one that the mask branch reads."""


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """(R, C, H, W) maps read bilinearly at their own (R, P, 2) points, (x, y) in 0..1 of the map: (R, C, P)."""
    return F.grid_sample(maps, 2 * points[:, :, None].to(maps.dtype) - 1, align_corners=False)[..., 0]


def in_image(rois: Tensor, points: Tensor, size: tuple[float, float]) -> Tensor:
    """(R, P, 2) points in 0..1 of their (R, 5) regions to 0..1 of an image of (h, w)."""
    corner, extent = rois[:, None, 1:3], rois[:, None, 3:] - rois[:, None, 1:3]
    return (corner + points * extent) / points.new_tensor((size[1], size[0]))


def sample_level(features: Tensor, rois: Tensor, points: Tensor) -> Tensor:
    """(B, C, H, W) finest level read at (R, P, 2) points of (R, 5) regions, which are in order of images: (R, C, P)."""
    where = in_image(rois, points, (features.shape[2] * STRIDE, features.shape[3] * STRIDE)).to(features.dtype)
    read = []
    for image, level in enumerate(features):
        own = where[rois[:, 0] == image]
        read.append(F.grid_sample(level[None], 2 * own[None] - 1, align_corners=False)[0].transpose(0, 1))
    return torch.cat(read)


def cell_centres(size: int, device: torch.device) -> Tensor:
    """(size size, 2) centres of a grid over 0..1, row by row."""
    centre = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)


class PointExtractor(nn.Module):
    """The finest level at the centres of the cells of each region: (R, 5) to (R, C, S, S)."""

    def __init__(self, size: int = 14) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        points = cell_centres(self.size, rois.device).expand(len(rois), -1, -1)
        return sample_level(features[0], rois, points).unflatten(2, (self.size, self.size))


class CoarseMaskHead(MaskHead):
    """A mask from fully connected layers at half the region's resolution: (R, C, S, S) to (R, K, M, M) logits."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 256,
        channels: int = 256,
        roi_size: int = 14,
        fcs: int = 2,
        fc_channels: int = 1024,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        self.size = roi_size // 2
        self.downsample_conv = ConvModule(in_channels, channels, 2, stride=2, activation=nn.ReLU(inplace=True))
        self.fcs = fc_layers(channels * self.size**2, fc_channels, fcs)
        self.fc_logits = nn.Linear(fc_channels, num_classes * self.size**2)
        init_xavier(self.fcs)
        nn.init.normal_(self.fc_logits.weight, std=0.001)
        nn.init.zeros_(self.fc_logits.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample_conv(x).flatten(1)
        for fc in self.fcs:
            x = fc(x).relu()
        return self.fc_logits(x).float().reshape(len(x), self.num_classes, self.size, self.size)


class PointHead(nn.Module):
    """A multilayer perceptron on every point, which reads the coarse logits again in each layer (section 3.3):
    (R, C, P) features and (R, K, P) coarse logits to (R, K, P) logits."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 256,
        channels: int = 256,
        layers: int = 3,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.fcs = nn.ModuleList(
            ConvModule(
                (in_channels if index == 0 else channels) + num_classes,
                channels,
                1,
                conv=nn.Conv1d,
                activation=nn.ReLU(inplace=True),
            )
            for index in range(layers)
        )
        self.fc_logits = nn.Conv1d(channels + num_classes, num_classes, 1)
        for fc in self.fcs:
            nn.init.kaiming_normal_(fc.conv.weight, nonlinearity="relu")  # type: ignore[union-attr]
        nn.init.normal_(self.fc_logits.weight, std=0.001)
        nn.init.zeros_(self.fc_logits.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        coarse = coarse.to(x.dtype)
        for fc in self.fcs:
            x = fc(torch.cat((x, coarse), dim=1))
        return self.fc_logits(torch.cat((x, coarse), dim=1)).float()


@dataclass(frozen=True)
class PointSampler:
    """Draws the points that are trained on (section 3.1, "Point selection for training").

    points: how many of each region. oversampling: how many times as many are drawn at random, of which the most
    uncertain make up ``uncertain_share`` of the points; the rest are drawn anew.
    """

    points: int = 14 * 14
    oversampling: float = 3.0
    uncertain_share: float = 0.75

    @torch.no_grad()
    def __call__(self, logits: Tensor) -> Tensor:
        """(R, M, M) coarse logits of each region's class to (R, P, 2) points in 0..1."""
        count = len(logits)
        drawn = torch.rand(count, int(self.points * self.oversampling), 2, device=logits.device)
        doubt = -sample_points(logits[:, None], drawn)[:, 0].abs()
        uncertain = int(self.points * self.uncertain_share)
        index = doubt.topk(uncertain, dim=1).indices
        chosen = drawn.gather(1, index[..., None].expand(-1, -1, 2))
        return torch.cat((chosen, torch.rand(count, self.points - uncertain, 2, device=logits.device)), dim=1)


def point_targets(points: Tensor, regions: Sequence[SampledRegions], targets: Sequence[Targets]) -> Tensor:
    """(Q, P, 2) points of the positives to (Q, P): their ground truth masks, read bilinearly."""
    wanted = []
    for own, region, target in zip(points.split([len(r.matched) for r in regions]), regions, targets, strict=True):
        if target.masks is None:
            raise ValueError("Targets.masks: this detector learns masks, but the targets have none")
        if not len(own):
            wanted.append(own[..., 0])
            continue
        masks = target.masks.to(own.dtype)
        height, width = masks.shape[1:]
        where = in_image(to_rois([region.positive_boxes]), own, (height, width))
        read = F.grid_sample(masks[None], 2 * where[None] - 1, align_corners=False)[0]
        wanted.append(read[region.matched, torch.arange(len(own), device=own.device)])
    return torch.cat(wanted)


class PointRendRoIHead(StandardRoIHead):
    """Boxes, coarse masks, and points that refine them.

    At test time a mask is doubled ``subdivisions`` times, each time deciding anew the ``points_per_step`` most
    uncertain of its points (section 3.1).
    """

    mask_head: CoarseMaskHead

    def __init__(
        self,
        *,
        bbox_roi_extractor: nn.Module,
        bbox_head: BoxHead,
        mask_roi_extractor: PointExtractor,
        mask_head: CoarseMaskHead,
        point_head: PointHead,
        assigner: Assign | None = None,
        sampler: Sampler | None = None,
        point_sampler: PointSampler | None = None,
        subdivisions: int = 5,
        points_per_step: int = 784,
    ) -> None:
        super().__init__(
            bbox_roi_extractor=bbox_roi_extractor,
            bbox_head=bbox_head,
            mask_roi_extractor=mask_roi_extractor,
            mask_head=mask_head,
            assigner=assigner,
            sampler=sampler,
        )
        self.point_head, self.point_sampler = point_head, point_sampler or PointSampler()
        self.subdivisions, self.points_per_step = subdivisions, points_per_step

    def points_forward(self, features: Sequence[Tensor], rois: Tensor, points: Tensor, coarse: Tensor) -> Tensor:
        """(R, P, 2) points of (R, 5) regions with (R, K, M, M) coarse masks to (R, K, P) logits."""
        return self.point_head(sample_level(features[0], rois, points), sample_points(coarse, points))

    def mask_losses(
        self, features: Sequence[Tensor], regions: Sequence[SampledRegions], targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        rois = to_rois([r.positive_boxes for r in regions])
        coarse = self.masks_forward(features, rois)
        losses = self.mask_head.loss(coarse, regions, targets)
        labels = torch.cat([r.labels for r in regions])
        points = self.point_sampler(own_class(coarse, labels))
        decided = self.points_forward(features, rois, points, coarse)
        if not len(rois):
            return {**losses, "loss_point": decided.sum() * 0}
        wanted = point_targets(points, regions, targets)
        loss = F.binary_cross_entropy_with_logits(own_class(decided, labels), wanted)
        return {**losses, "loss_point": self.point_head.loss_weight * loss}

    def region_masks(self, features: Sequence[Tensor], rois: Tensor, labels: Tensor) -> RegionMasks:
        fine = self.refine(features, rois, self.masks_forward(features, rois), labels)
        return RegionMasks(fine[:, None].sigmoid())

    def refine(self, features: Sequence[Tensor], rois: Tensor, coarse: Tensor, labels: Tensor) -> Tensor:
        """(R, K, M, M) coarse logits to finer (R, M', M') ones of each region's own class."""
        masks = own_class(coarse, labels)
        for step in range(self.subdivisions):
            masks = F.interpolate(masks[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0]
            size = int(masks.shape[-1])
            # A step is passed over where even the next one decides all of its points.
            if self.points_per_step >= 4 * size**2 and step < self.subdivisions - 1:
                continue
            index = (-masks.flatten(1).abs()).topk(min(self.points_per_step, size**2), dim=1).indices
            points = cell_centres(size, rois.device)[index]
            decided = own_class(self.points_forward(features, rois, points, coarse), labels)
            masks = masks.flatten(1).scatter(1, index, decided).unflatten(1, (size, size))
        return masks


def point_rend(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """PointRend on a backbone with four stages."""
    return mask_rcnn(
        num_classes,
        backbone=backbone,
        mask_roi_extractor=PointExtractor,
        mask_head=CoarseMaskHead,
        roi_head=partial(PointRendRoIHead, point_head=PointHead(num_classes=num_classes)),
    )
