"""The detectors that several topics compare: ours and torchvision's, of one architecture, on random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from sdk import models
from sdk.models.structures import ImageBatch, Targets

CLASSES = 80


@dataclass(frozen=True)
class Pair:
    """One architecture. name: of ours in the zoo. classes: what torchvision's builder counts, background included."""

    title: str
    name: str
    builder: str
    classes: int

    def ours(self) -> Any:
        torch.manual_seed(0)
        return models.create(self.name, weights=None)

    def torchvision(self, size: tuple[int, int]) -> nn.Module:
        """Torchvision's, for images of (h, w) that it does not resize, with the same parts frozen as ours."""
        torch.manual_seed(0)
        build = getattr(torchvision.models.detection, self.builder)
        made = build(
            weights=None, weights_backbone=None, num_classes=self.classes, min_size=min(size), max_size=max(size)
        )
        body = made.backbone.body
        for part in (body.conv1, body.bn1, body.layer1):
            part.requires_grad_(False)
        frozen = torchvision.ops.misc.FrozenBatchNorm2d
        for parent in list(body.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, nn.BatchNorm2d):
                    # As in its pretrained backbones, and as ours keeps its statistics.
                    setattr(parent, name, frozen(layer.num_features))
        return made


PAIRS = (
    Pair("Faster R-CNN R-50 FPN", "faster_rcnn_r50_fpn_1x_coco", "fasterrcnn_resnet50_fpn", CLASSES + 1),
    Pair("RetinaNet R-50 FPN", "retinanet_r50_fpn_1x_coco", "retinanet_resnet50_fpn", CLASSES),
)


def images(count: int, size: tuple[int, int]) -> tuple[ImageBatch, list[Tensor]]:
    """Noise as our batch, and as the list of images in 0..1 that torchvision takes."""
    pixels = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    normalized = (pixels - mean[:, None, None]) / std[:, None, None]
    return ImageBatch(normalized, [size] * count), list(pixels)


def objects(count: int, size: tuple[int, int], each: int = 8) -> tuple[list[Targets], list[dict[str, Tensor]]]:
    """So many objects in each image, as ours and as torchvision's targets."""
    generator = torch.Generator().manual_seed(1)
    ours, theirs = [], []
    for _ in range(count):
        corners = torch.rand(each, 2, generator=generator) * torch.tensor((size[1], size[0])) * 0.6
        extents = torch.rand(each, 2, generator=generator) * min(size) * 0.3 + 8
        boxes = torch.cat((corners, corners + extents), dim=1)
        labels = torch.randint(CLASSES, (each,), generator=generator)
        ours.append(Targets(boxes, labels))
        theirs.append({"boxes": boxes, "labels": labels})
    return ours, theirs
