"""FoveaBox: Kong et al., "FoveaBox: Beyond Anchor-based Object Detector".

Every location of five pyramid levels scores the object whose middle, its fovea, it lies in, and predicts the logarithm
of its distances to the sides. Levels overlap in the sizes that they are responsible for. With alignment, the predicted
box also moves the taps of a deformable convolution before the location is scored (section 3.6).

Shape letters: B images, L levels, H x W locations of a level, P points, K classes, N objects of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..boxes import box_sizes
from ..coders import DistanceCoder
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.points import level_points
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..layers import GN, ConvModule
from ..layers.deform import FeatureAdaption
from ..layers.init import bias_for_prior, init_normal
from ..losses import FocalLoss, SmoothL1Loss
from ..necks.fpn import FPN
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, ImageSize, Targets

STRIDES = (8, 16, 32, 64, 128)
UNITS = (16, 32, 64, 128, 256)
"""Pixels in which each level predicts distances."""
RANGES = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
"""Square roots of the areas for which each level is responsible."""


def fovea(boxes: Tensor, size: tuple[int, int], stride: int, share: float) -> Tensor:
    """(N, H W) bool: which locations of a level lie in the middle ``share`` of each box (section 3.3)."""
    scaled = boxes / stride
    centre, half = (scaled[:, :2] + scaled[:, 2:]) / 2, box_sizes(scaled) * (share / 2)
    last = scaled.new_tensor((size[1] - 1, size[0] - 1))
    low = torch.minimum((centre - half - 0.5).ceil().clamp(min=0), last)
    high = torch.minimum((centre + half - 0.5).floor().clamp(min=0), last)
    columns, rows = (torch.arange(count, device=boxes.device) for count in (size[1], size[0]))
    across = (columns >= low[:, :1]) & (columns <= high[:, :1])
    down = (rows >= low[:, 1:]) & (rows <= high[:, 1:])
    return (down[:, :, None] & across[:, None]).flatten(1)


class FoveaHead(DenseHead):
    """Classification and regression towers; outputs are (logits, codes) of each level.

    logits: (B, K, H, W), by sigmoid. codes: (B, 4, H, W), logarithms of the distances to the left, top, right and
    bottom side in the level's unit. towers: builds each of the two; with group normalization where ``align``. align:
    whether the box moves the taps, in ``offset_groups``, with which a location is scored; the classification tower is
    then wide and short. share: size of the fovea. strides, units and ranges: of each level.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower | None = None,
        align: bool = False,
        offset_groups: int = 4,
        share: float = 0.4,
        strides: Sequence[int] = STRIDES,
        units: Sequence[float] = UNITS,
        ranges: Sequence[tuple[float, float]] = RANGES,
        class_loss: FocalLoss | None = None,
        box_loss: SmoothL1Loss | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.share, self.coder = num_classes, share, DistanceCoder()
        self.strides, self.units, self.ranges = tuple(strides), tuple(units), tuple(ranges)
        self.class_loss = class_loss or FocalLoss(gamma=1.5, alpha=0.4)
        self.box_loss = box_loss or SmoothL1Loss(beta=0.11)
        towers = towers or Tower(norm=GN if align else None)
        channels, norm = towers.channels, towers.norm
        self.reg_convs = towers()
        self.conv_reg = nn.Conv2d(channels, 4, 3, padding=1)
        width = 4 * channels if align else channels
        if align:
            self.cls_convs = nn.Sequential(
                ConvModule(channels, width, 3, padding=1, norm=norm, activation=nn.ReLU(inplace=True)),
                ConvModule(width, width, 1, norm=norm, activation=nn.ReLU(inplace=True)),
            )
        else:
            self.cls_convs = towers()
        self.conv_cls = nn.Conv2d(width, num_classes, 3, padding=1)
        init_normal(self)
        nn.init.constant_(self.conv_cls.bias, bias_for_prior(0.01))  # type: ignore[arg-type]
        self.feature_adaption = FeatureAdaption(4, channels, offset_groups) if align else None

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, codes = [], []
        for x in features:
            code = self.conv_reg(self.reg_convs(x))
            if self.feature_adaption is not None:
                x = self.feature_adaption(x, code.exp())
            logits.append(self.conv_cls(self.cls_convs(x)))
            codes.append(code)
        return logits, codes

    def image_targets(self, sizes: Sequence[tuple[int, int]], target: Targets) -> tuple[Tensor, Tensor]:
        """(P,) labels, K for background, and (P, 4) codes of one image; where foveas overlap the smallest object
        wins."""
        boxes = target.boxes
        area = box_sizes(boxes).prod(dim=1).sqrt()
        labels, codes = [], []
        points = level_points(sizes, self.strides, boxes.device)
        levels = zip(sizes, self.strides, self.units, self.ranges, points, strict=True)
        for size, stride, unit, (low, high), level in levels:
            label = torch.full((len(level),), self.num_classes, dtype=torch.int64, device=boxes.device)
            code = boxes.new_zeros(len(level), 4)
            if len(boxes):
                fits = (area >= low) & (area <= high)
                inside = fovea(boxes, size, stride, self.share) & fits[:, None]
                matched = area[:, None].expand_as(inside).masked_fill(~inside, float("inf")).argmin(dim=0)
                distances = self.coder.encode(level, boxes[matched]) / unit
                label = torch.where(inside.any(dim=0), target.labels[matched], label)
                code = distances.clamp(1 / 16, 16).log()
            labels.append(label)
            codes.append(code)
        return torch.cat(labels), torch.cat(codes)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes = outputs
        sizes = feature_sizes(logits)
        each = [self.image_targets(sizes, target) for target in targets]
        labels = torch.cat([label for label, _ in each])
        positive = labels < self.num_classes
        wanted = torch.cat([code for _, code in each])[positive]
        flat = all_by_prior(logits, self.num_classes).flatten(0, 1)
        pred = all_by_prior(codes, 4).flatten(0, 1)[positive]
        return {
            "loss_cls": self.class_loss(flat, labels, None, positive.sum() + len(targets)),
            "loss_bbox": self.box_loss(pred, wanted, None, positive.sum()),
        }

    def decode(self, points: Tensor, codes: Tensor, size: ImageSize) -> Tensor:
        """(N, 2) points and (N, 4) distances in pixels to boxes that end at the image's last pixel."""
        return self.coder.decode(points, codes, (size[0] - 1, size[1] - 1))

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, codes = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [by_prior(level, 4).exp() * unit for level, unit in zip(codes, self.units, strict=True)],
            level_points(feature_sizes(logits), self.strides, logits[0].device),
            self.decode,
            images,
            test,
        )


def foveabox(num_classes: int, *, backbone: Callable[[], ResNet], align: bool = False) -> SingleStageDetector:
    """FoveaBox on a backbone with four stages; ``align`` as of ``FoveaHead``."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, start=1, extra="input"),
        bbox_head=FoveaHead(num_classes=num_classes, align=align),
        test=DenseTest(),
    )
