"""Grid R-CNN: Lu et al., "Grid R-CNN", in the faster form of Lu et al., "Grid R-CNN Plus: Faster and Better". Faster
R-CNN whose second stage only classifies; the boxes of its detections come from heat maps of 3 x 3 grid points.

Shape letters: R regions, Q positive ones, C channels, S region size, K classes, G = 9 grid points (column by column),
M heat map size (2 S), of which each point sees its half of the whole map of 2 M.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assigners import MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..boxes import box_centres, box_sizes, clip_boxes, to_batch_frame, to_output_frame
from ..dense.open_sizes import NOT_THERE, open_region_detections
from ..detectors.two_stage import RoIHead, TwoStageDetector
from ..layers import ConvModule, Norm
from ..layers.init import bias_for_prior, init_kaiming, init_xavier, zero_bias
from ..layers.linear import fc_layers
from ..losses import CrossEntropy
from ..necks.fpn import FPN
from ..roi.box_head import region_labels
from ..roi.extractor import roi_align_extractor
from ..roi.rois import SampledRegions, sample_batch, to_rois
from ..roi.standard import is_there, region_detections
from ..samplers import RandomSampler, random_choice
from ..settings import RoITest
from ..structures import Detections, ImageBatch, OpenBatch, Targets
from .cascade_rcnn import first_stage

SIDE = 3
POINTS = SIDE**2
NORM = Norm("gn", groups=36)


class RegionClassifier(nn.Module):
    """Two fully connected layers and class logits: (R, C, S, S) to (R, K + 1), the last column for background."""

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 256,
        roi_size: int = 7,
        fc_channels: int = 1024,
        class_loss: CrossEntropy | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.class_loss = num_classes, class_loss or CrossEntropy()
        self.shared_fcs = fc_layers(channels * roi_size**2, fc_channels, 2)
        self.fc_cls = nn.Linear(fc_channels, num_classes + 1)
        init_xavier(self.shared_fcs)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        zero_bias(self.fc_cls)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for fc in self.shared_fcs:
            x = fc(x).relu()
        return self.fc_cls(x).float()

    def loss(self, logits: Tensor, regions: Sequence[SampledRegions]) -> dict[str, Tensor]:
        """Cross-entropy, averaged over all regions."""
        labels = region_labels(regions, self.num_classes)
        return {"loss_cls": self.class_loss(logits, labels, None, max(len(labels), 1))}


def transition(channels: int) -> nn.Sequential:
    """What passes features from a grid point to its neighbour (Grid R-CNN, section 3.3)."""
    return nn.Sequential(nn.Conv2d(channels, channels, 5, padding=2, groups=channels), nn.Conv2d(channels, channels, 1))


def grid_neighbours() -> list[list[int]]:
    """The points beside each grid point: left, upper, lower and right one."""
    result = []
    for column in range(SIDE):
        for line in range(SIDE):
            beside = ((column - 1, line), (column, line - 1), (column, line + 1), (column + 1, line))
            result.append([x * SIDE + y for x, y in beside if 0 <= x < SIDE and 0 <= y < SIDE])
    return result


class GridHead(nn.Module):
    """Region features to heat maps of the grid points: (R, C, S, S) to two times (R, G, M, M) logits.

    The second comes from features that are not fused between neighbours, and is computed in training only.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        point_channels: int = 64,
        convs: int = 8,
        roi_size: int = 14,
        norm: Norm | None = NORM,
        loss_weight: float = 15.0,
    ) -> None:
        super().__init__()
        self.size, self.loss_weight = 2 * roi_size, loss_weight
        channels = point_channels * POINTS
        self.convs = nn.Sequential(
            *(
                ConvModule(
                    in_channels if index == 0 else channels,
                    channels,
                    3,
                    stride=2 if index == 0 else 1,
                    padding=1,
                    bias=True,
                    norm=norm,
                    activation=nn.ReLU(inplace=True),
                )
                for index in range(convs)
            )
        )
        self.deconv1 = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, groups=POINTS)
        self.norm1 = nn.GroupNorm(POINTS, channels)
        self.deconv2 = nn.ConvTranspose2d(channels, POINTS, 4, stride=2, padding=1, groups=POINTS)
        self.neighbours = grid_neighbours()
        self.forder_trans = nn.ModuleList(
            nn.ModuleList(transition(point_channels) for _ in near) for near in self.neighbours
        )
        self.sorder_trans = nn.ModuleList(
            nn.ModuleList(transition(point_channels) for _ in near) for near in self.neighbours
        )
        init_kaiming(self)
        for layer in (self.deconv1, self.deconv2):
            nn.init.normal_(layer.weight, std=0.001)
        nn.init.constant_(self.deconv2.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def offsets(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(G,) column and line at which each point's half begins in the whole map (Grid R-CNN Plus, section 2)."""
        begin = torch.tensor([0, self.size // 2, self.size], device=device)
        return begin.repeat_interleave(SIDE), begin.repeat(SIDE)

    def fused(self, own: Sequence[Tensor], others: Sequence[Tensor], transitions: nn.ModuleList) -> list[Tensor]:
        """The features of every point plus what comes over from its neighbours."""
        result = []
        for x, near, layers in zip(own, self.neighbours, transitions, strict=True):
            for index, layer in zip(near, layers, strict=True):  # type: ignore[arg-type]
                x = x + layer(others[index])
            result.append(x)
        return result

    def heat(self, x: Tensor) -> Tensor:
        """(R, G C', S / 2, S / 2) features to (R, G, M, M) logits."""
        return self.deconv2(self.norm1(self.deconv1(x)).relu()).float()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convs(x)
        own = x.chunk(POINTS, dim=1)
        first = self.fused(own, own, self.forder_trans)
        second = self.fused(own, first, self.sorder_trans)
        heat = self.heat(torch.cat(second, dim=1))
        return heat, self.heat(x) if self.training else heat

    def targets(self, boxes: Tensor, wanted: Tensor) -> Tensor:
        """(Q, 4) positive boxes and their ground truths to (Q, G, M, M) of 0 and 1: each grid point and the pixels
        beside it, in a map that reaches half a box beyond the box. None where the box is too small."""
        corner, extent = boxes[:, :2] - box_sizes(boxes) / 2, 2 * box_sizes(boxes)
        large = (extent > SIDE).all(dim=1)
        share = torch.arange(SIDE, device=boxes.device) / (SIDE - 1)
        x = wanted[:, :1] + box_sizes(wanted)[:, :1] * share.repeat_interleave(SIDE)
        y = wanted[:, 1:2] + box_sizes(wanted)[:, 1:] * share.repeat(SIDE)
        scale = 2 * self.size / extent.clamp(min=1)
        column = ((x - corner[:, :1]) * scale[:, :1]).long()
        line = ((y - corner[:, 1:]) * scale[:, 1:]).long()
        begin_x, begin_y = self.offsets(boxes.device)
        pixel = torch.arange(self.size, device=boxes.device)
        across = (pixel + begin_x[:, None] - column[..., None]) ** 2
        down = (pixel + begin_y[:, None] - line[..., None]) ** 2
        near = across[:, :, None, :] + down[..., None] <= 1
        return (near & large[:, None, None, None]).float()

    def loss(self, heat: tuple[Tensor, Tensor], wanted: Tensor) -> dict[str, Tensor]:
        """Binary cross-entropy of both heat maps with the (Q, G, M, M) targets, averaged over pixels."""
        if not len(wanted):
            return {"loss_grid": (heat[0].sum() + heat[1].sum()) * 0}
        fused, plain = (F.binary_cross_entropy_with_logits(x, wanted) for x in heat)
        return {"loss_grid": self.loss_weight * (fused + plain)}

    def boxes(self, boxes: Tensor, heat: Tensor) -> Tensor:
        """(R, 4) boxes moved to where (R, G, M, M) heat logits are highest.

        Each side is the mean of its three grid points, weighted by their scores (Grid R-CNN, section 3.2). Sides may
        lie outside the image, as in the published models.
        """
        score, position = heat.sigmoid().flatten(2).max(dim=2)
        begin_x, begin_y = self.offsets(boxes.device)
        corner, extent = boxes[:, :2] - box_sizes(boxes) / 2, box_sizes(boxes) / self.size
        x = corner[:, :1] + (position % self.size + begin_x + 0.5) * extent[:, :1]
        y = corner[:, 1:] + (position // self.size + begin_y + 0.5) * extent[:, 1:]
        score, x, y = (value.unflatten(1, (SIDE, SIDE)) for value in (score, x, y))
        sides = [
            (x[:, 0] * score[:, 0]).sum(dim=1) / score[:, 0].sum(dim=1),
            (y[:, :, 0] * score[:, :, 0]).sum(dim=1) / score[:, :, 0].sum(dim=1),
            (x[:, -1] * score[:, -1]).sum(dim=1) / score[:, -1].sum(dim=1),
            (y[:, :, -1] * score[:, :, -1]).sum(dim=1) / score[:, :, -1].sum(dim=1),
        ]
        return torch.stack(sides, dim=1)


def jittered(boxes: Tensor, size: tuple[int, int], amplitude: float = 0.15) -> Tensor:
    """(Q, 4) boxes, centre and size changed at random by up to ``amplitude`` of the size, inside an image of (h, w)."""
    change = torch.empty_like(boxes).uniform_(-amplitude, amplitude)
    centre = box_centres(boxes) + box_sizes(boxes) * change[:, :2]
    half = box_sizes(boxes) * (1 + change[:, 2:]) / 2
    return clip_boxes(torch.cat((centre - half, centre + half), dim=1), (size[0] - 1, size[1] - 1))


class GridRoIHead(RoIHead):
    """Classes from the regions, boxes from the grid points of at most ``max_grids`` regions in training."""

    def __init__(
        self,
        *,
        bbox_roi_extractor: nn.Module,
        bbox_head: RegionClassifier,
        grid_roi_extractor: nn.Module,
        grid_head: GridHead,
        assigner: MaxIoUAssigner | None = None,
        sampler: RandomSampler | None = None,
        max_grids: int = 192,
    ) -> None:
        super().__init__()
        self.bbox_roi_extractor, self.bbox_head = bbox_roi_extractor, bbox_head
        self.grid_roi_extractor, self.grid_head, self.max_grids = grid_roi_extractor, grid_head, max_grids
        self.num_classes = bbox_head.num_classes
        self.assigner = assigner or MaxIoUAssigner(0.5, 0.5, min_positive=0.5, match_low_quality=True)
        self.sampler = sampler or RandomSampler(num=512, pos_fraction=0.25, add_ground_truth=True)

    def loss(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        images: ImageBatch,
        targets: Sequence[Targets],
    ) -> dict[str, Tensor]:
        regions = sample_batch(proposals, targets, self.assigner, self.sampler)
        logits = self.bbox_head(self.bbox_roi_extractor(features, to_rois([r.boxes for r in regions])))
        losses = self.bbox_head.loss(logits, regions)
        rois = to_rois([jittered(r.positive_boxes, size) for r, size in zip(regions, images.sizes, strict=True)])
        wanted = torch.cat([r.matched_boxes for r in regions])
        chosen = random_choice(torch.arange(len(rois), device=rois.device), self.max_grids)
        heat = self.grid_head(self.grid_roi_extractor(features, rois[chosen]))
        losses.update(self.grid_head.loss(heat, self.grid_head.targets(rois[chosen, 1:], wanted[chosen])))
        return losses

    def predict_boxes(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], images: ImageBatch, test: RoITest
    ) -> tuple[list[Detections], None]:
        scores = self.bbox_head(self.bbox_roi_extractor(features, to_rois(proposals))).softmax(dim=1)[:, :-1]
        if isinstance(images, OpenBatch):
            return self.predict_open(features, proposals[0], scores, images, test), None
        detections = [
            region_detections(clip_boxes(boxes, images.sizes[index]), own, images, index, test)
            for index, (boxes, own) in enumerate(zip(proposals, scores.split([len(p) for p in proposals])))
        ]
        found = [to_batch_frame(d.boxes, images, index) for index, d in enumerate(detections)]
        heat, _ = self.grid_head(self.grid_roi_extractor(features, to_rois(found)))
        result = []
        for index, (boxes, own) in enumerate(zip(found, heat.split([len(d) for d in detections]))):
            moved = self.grid_head.boxes(boxes, own)
            result.append(replace(detections[index], boxes=to_output_frame(moved, images, index)))
        return result, None

    def predict_open(
        self, features: Sequence[Tensor], proposals: Tensor, scores: Tensor, images: OpenBatch, test: RoITest
    ) -> list[Detections]:
        """Detections of an OpenBatch from (B, P, 4) proposals and (B P, K) scores."""
        regions = proposals.shape[1]
        size = images.each_size(regions)
        inside = clip_boxes(proposals.flatten(0, 1), size).unflatten(0, (-1, regions))
        counted = torch.where(is_there(proposals)[..., None], scores.unflatten(0, (-1, regions)), NOT_THERE)
        (found,) = open_region_detections(inside, counted, images, test)
        boxes = to_batch_frame(found.boxes, images, 0)
        heat, _ = self.grid_head(self.grid_roi_extractor(features, to_rois([boxes])))
        moved = self.grid_head.boxes(boxes.flatten(0, 1), heat).unflatten(0, (-1, boxes.shape[1]))
        moved = torch.where((found.labels >= 0)[..., None], to_output_frame(moved, images, 0), 0.0)
        return [replace(found, boxes=moved)]


def grid_rcnn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    bbox_roi_extractor: Callable[[], nn.Module] = partial(roi_align_extractor, 7),
    grid_roi_extractor: Callable[[], nn.Module] = partial(roi_align_extractor, 14),
) -> TwoStageDetector:
    """Grid R-CNN on a backbone with four stages; the extractors make regions of 7 x 7 and 14 x 14."""
    body = backbone()
    return TwoStageDetector(
        backbone=body,
        neck=FPN(body.out_channels),
        rpn_head=first_stage(),
        roi_head=GridRoIHead(
            bbox_roi_extractor=bbox_roi_extractor(),
            bbox_head=RegionClassifier(num_classes=num_classes),
            grid_roi_extractor=grid_roi_extractor(),
            grid_head=GridHead(),
        ),
        test=RoITest(score_threshold=0.03, nms_threshold=0.3),
    )
