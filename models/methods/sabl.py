"""SABL: Wang et al., "Side-Aware Boundary Localization for More Precise Object Detection".

Faster R-CNN, Cascade R-CNN and RetinaNet that find each side of a box on its own: first the bucket in which it lies,
then where it lies from there. How sure the buckets are enters the score.

Shape letters: N boxes, R regions of all images, Q positive ones, C channels, F channels of a fully connected layer,
S size of a region's features, G buckets of a side, U = 2 G places along a direction, K classes, B images, P locations
of all levels, H x W locations of a level, A shapes of a location.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..assigners import IGNORED, MaxIoUAssigner
from ..assigners.approx_max_iou import ApproxMaxIoUAssigner
from ..backbones.resnet import ResNet
from ..boxes import box_centres, box_sizes, clip_boxes
from ..dense.anchor_targets import batch_objects
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.postprocess import dense_detections
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..detectors.two_stage import TwoStageDetector
from ..layers import ConvModule, Norm
from ..layers.init import bias_for_prior, init_normal, init_xavier
from ..losses import CrossEntropy, FocalLoss, SmoothL1Loss, soft_binary_cross_entropy
from ..necks.fpn import FPN
from ..priors import AnchorGrid, anchor_grid
from ..roi.box_head import RegionHead, region_labels
from ..roi.cascade import CascadeRoIHead
from ..roi.extractor import roi_align_extractor
from ..roi.rois import SampledRegions
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, ImageSize, Targets
from .cascade_rcnn import first_stage
from .faster_rcnn import faster_rcnn
from .retinanet import STRIDES, retina_anchors

BUCKETS = 7
"""G where not given."""
NEAREST = 2
"""Of each side so many buckets, the nearest ones, learn where the side lies from them."""
TOWER = Tower(norm=None)


class BucketTargets(NamedTuple):
    """What the buckets of (N, 4) boxes should say, sides in the order left, right, top, bottom.

    labels: (N, 4, G), one at the nearest bucket. label_weights: (N, 4, G), zero at other buckets less than one bucket
    away. offsets: (N, 4, G), from the side to each bucket in bucket sizes. offset_weights: (N, 4, G), one at the
    nearest buckets.
    """

    labels: Tensor
    label_weights: Tensor
    offsets: Tensor
    offset_weights: Tensor


@dataclass(frozen=True)
class BucketCoder:
    """Buckets of the sides of boxes (section 3.2).

    scale: size of the region that is divided, in sizes of the prior; each side has ``count`` buckets, G, from its end
    of the region to the middle. A code is (..., 8 G): the logits of the buckets of the four sides, then their offsets.
    """

    scale: float
    count: int = BUCKETS

    def buckets(self, priors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 4) priors to the (N, 4, G) places of the buckets of each side and the (N, 4, 1) size of a bucket."""
        centre, half = box_centres(priors), box_sizes(priors) * (self.scale / 2)
        low, high = centre - half, centre + half
        ends = torch.stack((low[:, 0], high[:, 0], low[:, 1], high[:, 1]), dim=1)[..., None]
        size = ((high - low) / (2 * self.count)).repeat_interleave(2, dim=1)[..., None]
        steps = torch.arange(self.count, device=priors.device) + 0.5
        inwards = priors.new_tensor((1, -1, 1, -1))[:, None]
        return ends + inwards * steps * size, size

    def encode(self, priors: Tensor, boxes: Tensor) -> BucketTargets:
        """(N, 4) xyxy priors and boxes to the targets of the buckets."""
        places, size = self.buckets(priors)
        offsets = (places - boxes[:, (0, 2, 1, 3), None]) / size
        distances = offsets.abs()
        near = distances.topk(NEAREST, dim=2, largest=False)
        labels = torch.zeros_like(offsets).scatter(2, near.indices[..., :1], 1)
        label_weights = 1 - ((distances < 1) & (labels == 0)).to(offsets.dtype)
        close = (near.values < 1).to(offsets.dtype)
        close[..., 0] = 1
        return BucketTargets(labels, label_weights, offsets, torch.zeros_like(offsets).scatter(2, near.indices, close))

    def decode(self, priors: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(N, 4) priors and (N, 8 G) codes to (N, 4) boxes, cut to the last pixel of an image of (h, w)."""
        logits, offsets = self.split(codes)
        places, bucket = self.buckets(priors)
        best = logits.argmax(dim=2, keepdim=True)
        sides = places.gather(2, best) - offsets.gather(2, best) * bucket
        boxes = sides[:, (0, 2, 1, 3), 0]
        return boxes if size is None else clip_boxes(boxes, (size[0] - 1, size[1] - 1))

    def confidences(self, codes: Tensor) -> Tensor:
        """(N, 8 G) codes to the (N,) probability of the best bucket, and of the second where it is its neighbour,
        averaged over the sides (section 3.3)."""
        values, index = self.split(codes)[0].softmax(dim=2).topk(2, dim=2)
        neighbours = (index[..., 0] - index[..., 1]).abs() == 1
        return (values[..., 0] + values[..., 1] * neighbours).mean(dim=1)

    def split(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 8 G) codes to (N, 4, G) logits and (N, 4, G) offsets."""
        logits, offsets = codes.reshape(len(codes), 2, 4, self.count).unbind(dim=1)
        return logits, offsets


class SABLHead(RegionHead):
    """The second stage: class logits from a fully connected layer; the features of the sides from convolutions and an
    attention pooling in either direction (section 3.1), which all sides score with the same layers.

    (R, C, S, S) to (R, K + 1) logits and (R, 8 G) codes, S = G. class_layers: fully connected layers of the classes.
    bucket_weight: of the loss of the buckets.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        scale: float = 1.7,
        buckets: int = BUCKETS,
        channels: int = 256,
        class_layers: int = 1,
        fc_channels: int = 1024,
        class_loss: Callable[..., Tensor] | None = None,
        offset_loss: SmoothL1Loss | None = None,
        bucket_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.coder, self.bucket_weight = BucketCoder(scale, buckets), bucket_weight
        self.class_loss, self.offset_loss = class_loss or CrossEntropy(), offset_loss or SmoothL1Loss(beta=0.1)
        width, layers = channels * buckets**2, []
        for _ in range(class_layers):
            layers += [nn.Linear(width, fc_channels), nn.ReLU(inplace=True)]
            width = fc_channels
        self.cls_fcs = nn.Sequential(*layers)
        self.fc_cls = nn.Linear(width, num_classes + 1)
        self.reg_pre_convs = nn.Sequential(convolution(channels, (3, 3)), convolution(channels, (3, 3)))
        self.reg_conv_att_x = nn.Conv2d(channels, 1, 1)
        self.reg_conv_att_y = nn.Conv2d(channels, 1, 1)
        self.reg_post_conv_xs = nn.Sequential(convolution(channels, (1, 3)))
        self.reg_post_conv_ys = nn.Sequential(convolution(channels, (3, 1)))
        self.upsample_x = nn.ConvTranspose1d(channels, channels, 2, stride=2)
        self.upsample_y = nn.ConvTranspose1d(channels, channels, 2, stride=2)
        self.fc_reg_cls = nn.Linear(channels, 1)
        self.fc_reg_offset = nn.Linear(channels, 1)
        init_xavier(self.cls_fcs)
        for layer in (self.fc_cls, self.reg_conv_att_x, self.reg_conv_att_y, self.fc_reg_cls):
            init_normal(layer)
        init_normal(self.fc_reg_offset, std=0.001)
        for layer in (self.upsample_x, self.upsample_y):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.fc_cls(self.cls_fcs(x.flatten(1)))
        x = self.reg_pre_convs(x)
        across = self.reg_post_conv_xs(attention_pool(x, self.reg_conv_att_x(x), 2))[:, :, 0]
        down = self.reg_post_conv_ys(attention_pool(x, self.reg_conv_att_y(x), 3))[..., 0]
        sides = [self.upsample_x(across).relu(), self.upsample_y(down).relu()]
        codes = []
        for layer in (self.fc_reg_cls, self.fc_reg_offset):
            for side in sides:
                places = layer(side.transpose(1, 2))[..., 0]
                # Either end is counted from the outside inwards.
                codes += [places[:, : self.coder.count], places[:, self.coder.count :].flip(1)]
        return logits.float(), torch.cat(codes, dim=1).float()

    def loss(self, logits: Tensor, codes: Tensor, regions: Sequence[SampledRegions]) -> dict[str, Tensor]:
        """Classification over all regions; buckets and offsets over positives, divided by the number of all regions."""
        labels = region_labels(regions, self.num_classes)
        count = len(labels)
        wanted = self.coder.encode(
            torch.cat([r.positive_boxes for r in regions]), torch.cat([r.matched_boxes for r in regions])
        )
        buckets, offsets = self.coder.split(codes[labels < self.num_classes])
        return {
            "loss_cls": self.class_loss(logits, labels, None, max(count, 1)),
            "loss_bbox_cls": self.bucket_weight
            * soft_binary_cross_entropy(buckets, wanted.labels, wanted.label_weights, 4 * count),
            "loss_bbox_reg": self.offset_loss(offsets, wanted.offsets, wanted.offset_weights, count),
        }

    def refine(self, boxes: Tensor, labels: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(R, 4) boxes moved by their codes, whatever their label, cut to an image of (h, w) where given."""
        return self.coder.decode(boxes, codes, size)

    def decode(self, boxes: Tensor, codes: Tensor, size: ImageSize) -> Tensor:
        """(R, 4) boxes and their codes to (R, 4)."""
        return self.coder.decode(boxes, codes, size)

    def confidences(self, codes: Tensor) -> Tensor:
        """(R,) how sure the buckets are."""
        return self.coder.confidences(codes)


def convolution(channels: int, size: tuple[int, int]) -> ConvModule:
    """A convolution of (h, w) with ReLU that keeps the resolution."""
    padding = (size[0] // 2, size[1] // 2)
    return ConvModule(channels, channels, size, padding=padding, activation=nn.ReLU(inplace=True))


def attention_pool(x: Tensor, logits: Tensor, dim: int) -> Tensor:
    """(R, C, S, S) averaged along ``dim``, which is kept with size one, with weights from (R, 1, S, S) logits."""
    attention = logits.sigmoid()
    return (x * (attention / attention.sum(dim=dim, keepdim=True))).sum(dim=dim, keepdim=True)


class SABLRetinaHead(DenseHead):
    """RetinaNet's head with one square at every location, whose sides are found by buckets; outputs are
    (logits, buckets, offsets) of each level.

    logits: (B, K, H, W), by sigmoid. buckets and offsets: (B, 4 G, H, W). towers: builds each of the two. shapes: the
    anchors by which the squares are assigned. bucket_weight: of the loss of the buckets.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        towers: Tower = TOWER,
        shapes: AnchorGrid | None = None,
        squares: AnchorGrid | None = None,
        coder: BucketCoder = BucketCoder(scale=3.0),
        assigner: MaxIoUAssigner | None = None,
        class_loss: FocalLoss | None = None,
        offset_loss: SmoothL1Loss | None = None,
        bucket_weight: float = 1.5,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.shapes = shapes or retina_anchors()
        self.squares = squares or anchor_grid(STRIDES, scales=(4,), ratios=(1.0,))
        self.coder = coder
        self.assigner = ApproxMaxIoUAssigner(assigner or MaxIoUAssigner(positive=0.5, negative=0.4))
        self.class_loss = class_loss or FocalLoss()
        self.offset_loss = offset_loss or SmoothL1Loss(beta=1 / 9, weight=1.5)
        self.bucket_weight = bucket_weight
        channels = towers.channels
        self.cls_convs = towers()
        self.reg_convs = towers()
        self.retina_cls = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.retina_bbox_reg = nn.Conv2d(channels, 4 * coder.count, 3, padding=1)
        self.retina_bbox_cls = nn.Conv2d(channels, 4 * coder.count, 3, padding=1)
        init_normal(self)
        nn.init.constant_(self.retina_cls.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        logits = [self.retina_cls(self.cls_convs(x)) for x in features]
        sides = [self.reg_convs(x) for x in features]
        return logits, [self.retina_bbox_cls(x) for x in sides], [self.retina_bbox_reg(x) for x in sides]

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, buckets, offsets = outputs
        sizes, device = feature_sizes(logits), logits[0].device
        squares = torch.cat(self.squares(sizes, device))
        shapes = torch.cat(self.shapes(sizes, device)).reshape(len(squares), -1, 4)
        usable = torch.cat(self.squares.valid(sizes, images.padded_size, device))
        assignments = [self.assigner(shapes, usable, target.boxes) for target in targets]
        labels, boxes = batch_objects(assignments, targets, self.num_classes)
        weights = torch.stack([one.matched != IGNORED for one in assignments]).float()
        positive = labels < self.num_classes
        count = sum(max(int(own), 1) for own in positive.sum(dim=1))
        wanted = self.coder.encode(squares.expand(len(targets), -1, -1)[positive], boxes[positive])
        width = 4 * self.coder.count
        codes = torch.cat((all_by_prior(buckets, width), all_by_prior(offsets, width)), dim=2)
        own_buckets, own_offsets = self.coder.split(codes[positive])
        loss_buckets = soft_binary_cross_entropy(own_buckets, wanted.labels, wanted.label_weights, count * width)
        return {
            "loss_cls": self.class_loss(
                all_by_prior(logits, self.num_classes).flatten(0, 1), labels.flatten(), weights.flatten(), count
            ),
            "loss_bbox_cls": self.bucket_weight * loss_buckets,
            "loss_bbox_reg": self.offset_loss(own_offsets, wanted.offsets, wanted.offset_weights, count * 4 * NEAREST),
        }

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, buckets, offsets = outputs
        width = 4 * self.coder.count
        codes = [
            torch.cat((by_prior(first, width), by_prior(second, width)), dim=2)
            for first, second in zip(buckets, offsets, strict=True)
        ]
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            codes,
            self.squares(feature_sizes(logits), logits[0].device),
            self.coder.decode,
            images,
            test,
            factors=[self.coder.confidences(level.flatten(0, 1)).reshape(level.shape[:2]) for level in codes],
        )


def sabl_faster_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """SABL Faster R-CNN on a backbone with four stages."""
    return faster_rcnn(num_classes, backbone=backbone, bbox_head=SABLHead)


def sabl_cascade_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """SABL Cascade R-CNN on a backbone with four stages; the divided region shrinks from stage to stage."""
    body = backbone()
    scales = (1.7, 1.5, 1.3)
    return TwoStageDetector(
        backbone=body,
        neck=FPN(body.out_channels),
        rpn_head=first_stage(),
        roi_head=CascadeRoIHead(
            bbox_roi_extractor=[roi_align_extractor(7) for _ in scales],
            bbox_head=[SABLHead(num_classes=num_classes, scale=scale) for scale in scales],
        ),
    )


def sabl_retinanet(
    num_classes: int, *, backbone: Callable[[], ResNet], norm: Norm | None = None
) -> SingleStageDetector:
    """SABL RetinaNet on a backbone with four stages; ``norm``: normalization in the head's towers."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, start=1, extra="input"),
        bbox_head=SABLRetinaHead(num_classes=num_classes, towers=replace(TOWER, norm=norm)),
        test=DenseTest(),
    )
