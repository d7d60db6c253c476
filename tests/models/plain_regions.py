"""Regions of a cascade, worked out one by one, and small parts to work on.

Shape letters: R regions, Q positive ones, P proposals of an image, C channels, K classes, M mask size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from plain_boxes import Box, centre_and_size, iou, random_boxes
from torch import Tensor
from torchvision.ops import roi_align

from sdk.models.coders import DeltaCoder
from sdk.models.losses import SmoothL1Loss
from sdk.models.methods.cascade_rcnn import STAGE_STDS
from sdk.models.roi.box_head import BoxHead
from sdk.models.structures import ImageBatch, Targets


class Region(NamedTuple):
    """A box that is trained on; the number of its object, if it has one; whether it is that object's own box."""

    box: Box
    number: int | None
    is_object: bool


def trained_on(proposals: Sequence[Box], objects: Sequence[Box], threshold: float) -> list[Region]:
    """All objects and proposals, those with an object first: each with the object that it overlaps most, by
    ``threshold`` at least. An object's best proposal is its own, if it reaches the threshold."""
    overlaps = [[iou(proposal, box) for box in objects] for proposal in proposals]
    numbers: list[int | None] = [row.index(max(row)) if row and max(row) >= threshold else None for row in overlaps]
    for number in range(len(objects)):
        best = max((row[number] for row in overlaps), default=0.0)
        for place, row in enumerate(overlaps):
            if best >= threshold and row[number] == best:
                numbers[place] = number
    regions = [Region(box, number, True) for number, box in enumerate(objects)]
    regions += [Region(box, number, False) for box, number in zip(proposals, numbers, strict=True)]
    return sorted(regions, key=lambda region: region.number is None)


def moved(region: Region, code: Sequence[float], stds: Sequence[float], size: tuple[int, int]) -> Box:
    """A region moved by its code and cut to an image of (h, w)."""
    (x, y, w, h), (dx, dy, dw, dh) = centre_and_size(region.box), (c * s for c, s in zip(code, stds, strict=True))
    x, y, w, h = x + w * dx, y + h * dy, w * math.exp(dw), h * math.exp(dh)
    limits = (size[1], size[0]) * 2
    return tuple(
        min(max(v, 0.0), limit) for v, limit in zip((x - w / 2, y - h / 2, x + w / 2, y + h / 2), limits, strict=True)
    )


def as_rois(images: Sequence[Sequence[Region]]) -> Tensor:
    """(R, 5) image numbers and boxes."""
    rows = [[float(image), *region.box] for image, regions in enumerate(images) for region in regions]
    return torch.tensor(rows).reshape(-1, 5)


def positives(regions: Sequence[Region]) -> list[Region]:
    """Those that have an object."""
    return [region for region in regions if region.number is not None]


def smooth_l1(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


class Stage(NamedTuple):
    """What a stage of class-agnostic boxes is trained on, its losses, and the boxes of each image that it makes."""

    regions: list[list[Region]]
    loss_cls: float
    loss_bbox: float
    boxes: list[list[Box]]


def box_stage(
    forward: Callable[[Tensor], tuple[Tensor, Tensor]],
    proposals: Sequence[Sequence[Box]],
    images: ImageBatch,
    targets: Sequence[Targets],
    threshold: float,
    stds: Sequence[float],
) -> Stage:
    """A stage on (P, 4) proposals of each image; objects among its regions are not handed on.

    forward: from (R, 5) regions to (R, K + 1) logits and (R, 4) codes.
    """
    objects = [target.boxes.tolist() for target in targets]
    regions = [trained_on(own, boxes, threshold) for own, boxes in zip(proposals, objects, strict=True)]
    logits, codes = (values.tolist() for values in forward(as_rois(regions)))
    loss_cls, loss_bbox, made = 0.0, 0.0, []
    place = 0
    for own, target, boxes, size in zip(regions, targets, objects, images.sizes, strict=True):
        made.append([])
        for region in own:
            row, code, label = logits[place], codes[place], -1
            if region.number is not None:
                label = int(target.labels[region.number])
                (px, py, pw, ph), (x, y, w, h) = centre_and_size(region.box), centre_and_size(boxes[region.number])
                wanted = ((x - px) / pw, (y - py) / ph, math.log(w / pw), math.log(h / ph))
                loss_bbox += sum(smooth_l1(c - t / s) for c, t, s in zip(code, wanted, stds, strict=True))
            loss_cls += math.log(sum(map(math.exp, row))) - row[label]
            if not region.is_object:
                made[-1].append(moved(region, code, stds, size))
            place += 1
    return Stage(regions, loss_cls / place, loss_bbox / place, made)


def mask_loss(logits: Tensor, regions: Sequence[Sequence[Region]], targets: Sequence[Targets]) -> float:
    """Mean binary cross-entropy of the (Q, K, M, M) logits of the regions of all images at their labels."""
    total, place = 0.0, 0
    for own, target in zip(regions, targets, strict=True):
        for region in own:
            mask = target.masks[region.number, None, None].float()  # type: ignore[index]
            roi = torch.tensor([[0.0, *region.box]])
            wanted = roi_align(mask, roi, logits.shape[-1], aligned=True)[0, 0] >= 0.5
            p = logits[place, target.labels[region.number]].double().sigmoid()
            total -= float(torch.where(wanted, p.log(), (1 - p).log()).mean())
            place += 1
    return total / place


def two_images() -> tuple[list[Tensor], ImageBatch, list[Targets]]:
    """Proposals, a batch of 64 x 96 and targets: two objects of two classes in the first image, whose masks do not fill
    their boxes, and none in the second, which is smaller; three semantic classes and pixels without one."""
    generator = torch.Generator().manual_seed(2)
    boxes = torch.tensor([[6.0, 8.0, 46.0, 40.0], [40.0, 10.0, 90.0, 60.0]])
    near = boxes.repeat(4, 1) + 4 * torch.randn(8, 4, generator=generator)
    proposals = [torch.cat((near, random_boxes(5, seed=3, extent=40))), random_boxes(4, seed=4, extent=40)]
    semantic = torch.randint(0, 3, (2, 64, 96), generator=generator, dtype=torch.uint8)
    semantic[:, ::16] = 255
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 10:38, 6:30], masks[1, 10:50, 50:90] = 1, 1
    images = ImageBatch(torch.zeros(2, 3, 64, 96), [(64, 96), (56, 80)])
    targets = [
        Targets(boxes, torch.tensor([1, 0]), masks=masks, semantic=semantic[0]),
        Targets(boxes[:0], torch.zeros(0, dtype=torch.int64), masks=masks[:0], semantic=semantic[1]),
    ]
    return proposals, images, targets


def pyramid(channels: int) -> list[Tensor]:
    """Two images of 64 x 96 as (2, C, ...) levels of stride 4 and 8."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, channels, 64 // stride, 96 // stride, generator=generator) for stride in (4, 8)]


def cascade_box_heads(channels: int) -> list[BoxHead]:
    """The three box heads of a cascade for two classes, whose codes are large enough for boxes to move."""
    heads = []
    for stds in STAGE_STDS:
        heads.append(
            BoxHead(
                num_classes=2,
                in_channels=channels,
                fc_channels=16,
                class_agnostic=True,
                coder=DeltaCoder(stds=stds),
                box_loss=SmoothL1Loss(),
            )
        )
        torch.nn.init.normal_(heads[-1].fc_reg.weight, std=0.3)
    return heads
