"""YOLOv3: Redmon and Farhadi, "YOLOv3: An Incremental Improvement".

Three anchors in every cell of three levels; the cell that holds an object's centre predicts its box, an objectness
and independent class probabilities.

Shape letters: B images, H x W cells of a level, A anchors of a cell, P anchors, K classes, N objects of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assigners.grid import GridAssigner
from ..backbones.darknet import leaky_conv
from ..boxes import box_centres, box_sizes, to_output_frame
from ..dense.head import DenseHead, all_by_prior, feature_sizes
from ..dense.open_sizes import NOT_THERE, open_region_detections
from ..dense.postprocess import multiclass_nms
from ..detectors.single_stage import SingleStageDetector
from ..layers.init import bias_for_prior
from ..priors import AnchorGrid
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, OpenBatch, Targets

STRIDES = (32, 16, 8)
ANCHORS = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)
EPS = 1e-6


@dataclass
class YoloTest(DenseTest):
    """Settings of YOLOv3; objectness_threshold: anchors of lower objectness are not looked at."""

    objectness_threshold: float = 0.005


def yolo_anchors(
    strides: Sequence[int] = STRIDES, sizes: Sequence[Sequence[tuple[float, float]]] = ANCHORS
) -> AnchorGrid:
    """Anchors of (width, height) centred on the middle of each cell (section 2.3)."""
    bases = []
    for stride, level in zip(strides, sizes, strict=True):
        half = torch.tensor(level, dtype=torch.float32, device="cpu") / 2
        bases.append(torch.cat((stride / 2 - half, stride / 2 + half), dim=1))
    return AnchorGrid(strides, bases)


def encode(anchors: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
    """(N, 4) anchors, boxes and (N,) strides to (N, 4): centre within the cell in 0..1, log of the size ratio."""
    shift = (box_centres(boxes) - box_centres(anchors)) / strides[:, None] + 0.5
    ratio = (box_sizes(boxes) / box_sizes(anchors)).clamp(min=EPS).log()
    return torch.cat((shift.clamp(EPS, 1 - EPS), ratio), dim=1)


def decode(anchors: Tensor, codes: Tensor, strides: Tensor) -> Tensor:
    """(P, 4) anchors, codes (the centre by sigmoid already) and (P,) strides to (P, 4) boxes."""
    centre = box_centres(anchors) + (codes[:, :2] - 0.5) * strides[:, None]
    half = box_sizes(anchors) / 2 * codes[:, 2:4].exp()
    return torch.cat((centre - half, centre + half), dim=1)


def responsible_anchors(grid: AnchorGrid, sizes: Sequence[tuple[int, int]], boxes: Tensor) -> Tensor:
    """(P,) bool: the centre of one of the (N, 4) boxes lies in the anchor's cell."""
    flags = []
    for (height, width), stride, count in zip(sizes, grid.square_strides, grid.anchors_per_location, strict=True):
        cell = (box_centres(boxes) / stride).floor().long()
        flag = torch.zeros(height, width, dtype=torch.bool, device=boxes.device)
        flag[cell[:, 1].clamp(0, height - 1), cell[:, 0].clamp(0, width - 1)] = True
        flags.append(flag.flatten().repeat_interleave(count))
    return torch.cat(flags)


class YOLOV3Head(DenseHead):
    """One convolution and one prediction a level; the output is one list of (B, A (5 + K), H, W) maps.

    Each anchor has centre (2), size (2), objectness and K class logits.
    """

    def __init__(self, *, num_classes: int, in_channels: Sequence[int], anchors: AnchorGrid | None = None) -> None:
        super().__init__()
        self.num_classes, self.anchors, self.assigner = num_classes, anchors or yolo_anchors(), GridAssigner()
        self.centre_weight = self.size_weight = 2.0
        count = self.anchors.anchors_per_location[0]
        self.convs_bridge = nn.ModuleList(leaky_conv(c, 2 * c, 3) for c in in_channels)
        self.convs_pred = nn.ModuleList(nn.Conv2d(2 * c, count * (5 + num_classes), 1) for c in in_channels)
        for conv in self.convs_pred:
            nn.init.normal_(conv.weight, std=0.01)  # type: ignore[arg-type]
            bias = conv.bias.detach().view(count, -1).zero_()  # type: ignore[union-attr]
            # About eight objects in an image, each of which could be of any class.
            bias[:, 4:] = bias_for_prior(0.01)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor]]:
        maps = zip(self.convs_bridge, self.convs_pred, features, strict=True)
        return ([pred(bridge(x)) for bridge, pred, x in maps],)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        sizes = feature_sizes(outputs[0])
        preds = all_by_prior(outputs[0], 5 + self.num_classes)
        levels = self.anchors(sizes, preds.device)
        anchors, strides = torch.cat(levels), level_strides(levels, self.anchors.square_strides)
        total = {name: preds.new_zeros(()) for name in ("loss_cls", "loss_conf", "loss_xy", "loss_wh")}
        for pred, target in zip(preds, targets, strict=True):
            responsible = responsible_anchors(self.anchors, sizes, target.boxes)
            assignment = self.assigner(anchors, responsible, target.boxes)
            positive, negative = assignment.positive, assignment.negative
            matched = assignment.matched[positive]
            wanted = encode(anchors[positive], target.boxes[matched], strides[positive])
            classes = F.one_hot(target.labels[matched], self.num_classes).to(pred.dtype)
            counted = positive | negative
            own = pred[positive]
            total["loss_cls"] = total["loss_cls"] + bce_sum(own[:, 5:], classes)
            total["loss_conf"] = total["loss_conf"] + bce_sum(pred[counted, 4], positive[counted].to(pred.dtype))
            total["loss_xy"] = total["loss_xy"] + self.centre_weight * bce_sum(own[:, :2], wanted[:, :2])
            total["loss_wh"] = total["loss_wh"] + self.size_weight * (own[:, 2:4] - wanted[:, 2:]).square().sum()
        return total

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: YoloTest) -> list[Detections]:
        preds = all_by_prior(outputs[0], 5 + self.num_classes)
        levels = self.anchors(feature_sizes(outputs[0]), preds.device)
        anchors, strides = torch.cat(levels), level_strides(levels, self.anchors.square_strides)
        if isinstance(images, OpenBatch):
            objectness = preds[..., 4].sigmoid()
            shift = torch.cat((preds[..., :2].sigmoid(), preds[..., 2:4]), dim=2)
            count = preds.shape[0]
            every = anchors.expand(count, -1, -1).flatten(0, 1)
            boxes = decode(every, shift.flatten(0, 1), strides.expand(count, -1).flatten())
            scores = torch.where(
                (objectness >= test.objectness_threshold)[..., None], preds[..., 5:].sigmoid(), NOT_THERE
            )
            return open_region_detections(boxes.reshape(count, -1, 4), scores, images, test, objectness)
        detections = []
        for index, pred in enumerate(preds):
            objectness = pred[:, 4].sigmoid()
            kept = objectness >= test.objectness_threshold
            own, objectness = pred[kept], objectness[kept]
            boxes = decode(anchors[kept], torch.cat((own[:, :2].sigmoid(), own[:, 2:4]), dim=1), strides[kept])
            found, _ = multiclass_nms(
                to_output_frame(boxes, images, index),
                own[:, 5:].sigmoid(),
                score_threshold=test.score_threshold,
                nms_threshold=test.nms_threshold,
                max_per_image=test.max_per_image,
                factors=objectness,
            )
            detections.append(found)
        return detections


def level_strides(levels: Sequence[Tensor], strides: Sequence[float] = STRIDES) -> Tensor:
    """(P,) stride of each anchor of all levels."""
    return torch.cat([level.new_full((level.shape[0],), stride) for level, stride in zip(levels, strides, strict=True)])


def bce_sum(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the sigmoid cross-entropies."""
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")


class DetectionBlock(nn.Module):
    """Five convolutions, alternating 1 x 1 and 3 x 3."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = leaky_conv(in_channels, channels, 1)
        self.conv2 = leaky_conv(channels, 2 * channels, 3)
        self.conv3 = leaky_conv(2 * channels, channels, 1)
        self.conv4 = leaky_conv(channels, 2 * channels, 3)
        self.conv5 = leaky_conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv5(self.conv4(self.conv3(self.conv2(self.conv1(x)))))


class YOLOV3Neck(nn.Module):
    """From the coarsest map down: a detection block, then upsampled beside the next finer map (section 2.3)."""

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        coarse_first = list(in_channels)[::-1]
        self.out_channels = tuple(c // 2 for c in coarse_first)
        self.detect1 = DetectionBlock(coarse_first[0], self.out_channels[0])
        for index in range(1, len(coarse_first)):
            before, channels = self.out_channels[index - 1], self.out_channels[index]
            self.add_module(f"conv{index}", leaky_conv(before, channels, 1))
            self.add_module(f"detect{index + 1}", DetectionBlock(coarse_first[index] + channels, channels))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs = [self.detect1(inputs[-1])]
        for index, x in enumerate(list(inputs)[-2::-1], start=1):
            up = F.interpolate(self.get_submodule(f"conv{index}")(outputs[-1]), scale_factor=2)
            outputs.append(self.get_submodule(f"detect{index + 1}")(torch.cat((up, x), dim=1)))
        return tuple(outputs)


def yolov3(num_classes: int, *, backbone: Callable[[], nn.Module]) -> SingleStageDetector:
    """YOLOv3 on a backbone with three outputs of stride 8, 16 and 32."""
    body = backbone()
    neck = YOLOV3Neck(body.out_channels)  # type: ignore[arg-type]
    return SingleStageDetector(
        backbone=body,
        neck=neck,
        bbox_head=YOLOV3Head(num_classes=num_classes, in_channels=neck.out_channels),
        test=YoloTest(nms_threshold=0.45),
    )
