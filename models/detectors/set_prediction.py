"""Detectors that predict all objects of an image as one set.

Shape letters: B images, D predictions made one after another, Q queries, C class logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ..boxes import cxcywh_to_xyxy, to_output_frame
from ..dense.open_sizes import padded
from ..dense.postprocess import best_pairs
from ..settings import SetTest
from ..structures import Detections, ImageBatch, OpenBatch, Targets
from ..transformer.denoising import Denoising, NoisyObjects
from ..transformer.positions import padding_mask
from .base import Detector, full_precision


class SetOutputs(NamedTuple):
    """Raw outputs: logits (D, B, Q, C) and boxes (D, B, Q, 4) as centre and size, 0..1 of the image.

    A detector that predicts distributions has their logits too, (D, B, Q, 4 N) ``corners`` of N values for each side,
    and the (1, B, Q, 4) boxes that they ``start`` from.
    """

    logits: Tensor
    boxes: Tensor
    corners: Tensor | None = None
    start: Tensor | None = None

    def parted(self, first: int) -> tuple[SetOutputs, SetOutputs]:
        """The ``first`` queries, and the others."""
        parts = [None if x is None else (x[:, :, :first], x[:, :, first:]) for x in self]
        one, other = zip(*((None, None) if part is None else part for part in parts))
        return SetOutputs(*one), SetOutputs(*other)


class SetHead(nn.Module):
    """The contract of a head that reads maps and where they are padding, and predicts a set."""

    num_classes: int

    def forward(self, features: Sequence[Tensor], padding: Tensor) -> tuple[SetOutputs, ...]:
        """Maps and (B, H, W) bool padding of the pixels to one or more predicted sets, the detector's own first."""
        raise NotImplementedError

    def loss(
        self, outputs: tuple[SetOutputs, ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        raise NotImplementedError

    def predict(self, outputs: tuple[SetOutputs, ...], images: ImageBatch, test: SetTest) -> list[Detections]:
        """Detections of each image by the settings ``test``."""
        raise NotImplementedError


class SetDetector(Detector):
    """Backbone, neck where there is one, and a head that predicts a set."""

    def __init__(self, *, backbone: nn.Module, neck: nn.Module | None, bbox_head: SetHead, test: SetTest) -> None:
        super().__init__()
        self.backbone, self.neck, self.bbox_head, self.test = backbone, neck, bbox_head, test
        self.num_classes = bbox_head.num_classes

    def outputs(self, images: ImageBatch, *given: Any) -> tuple[SetOutputs, ...]:
        """The head's raw outputs, in float32; ``given``: what else it reads."""
        features = self.backbone(images.pixels)
        if self.neck is not None:
            features = self.neck(features)
        padding = padding_mask(images.sizes, images.padded_size, images.pixels.device)
        return tuple(SetOutputs(*full_precision(tuple(one))) for one in self.bbox_head(features, padding, *given))

    def forward(self, images: ImageBatch, targets: Sequence[Targets]) -> dict[str, Tensor]:
        outputs = self.outputs(images)
        with record_function("losses"):
            return self.bbox_head.loss(outputs, images, targets)

    def predict(self, images: ImageBatch) -> list[Detections]:
        return self.bbox_head.predict(self.outputs(images), images, self.test)


class DenoisingHead(SetHead):
    """The contract of a head that in training also repairs noisy objects (Li et al., "DN-DETR").

    denoising: how objects are made noisy.
    """

    denoising: Denoising

    def noisy(self, images: ImageBatch, targets: Sequence[Targets]) -> NoisyObjects | None:
        """Objects with noise, as shares of the whole batch, padding included; none where there are no objects."""
        return self.denoising(targets, frame_factors(images), self.num_classes)

    def forward(
        self, features: Sequence[Tensor], padding: Tensor, noisy: NoisyObjects | None = None
    ) -> tuple[SetOutputs, ...]:
        raise NotImplementedError

    def loss(
        self,
        outputs: tuple[SetOutputs, ...],
        images: ImageBatch,
        targets: Sequence[Targets],
        noisy: NoisyObjects | None = None,
    ) -> dict[str, Tensor]:
        raise NotImplementedError


class DenoisingDetector(SetDetector):
    """A detector whose head in training also repairs noisy objects."""

    bbox_head: DenoisingHead

    def forward(self, images: ImageBatch, targets: Sequence[Targets]) -> dict[str, Tensor]:
        noisy = self.bbox_head.noisy(images, targets)
        outputs = self.outputs(images, noisy)
        with record_function("losses"):
            return self.bbox_head.loss(outputs, images, targets, noisy)


def frame_factors(images: ImageBatch) -> Tensor:
    """(B, 4) width, height, width, height of the batch: what shares are multiplied by where padding counts."""
    height, width = images.padded_size
    if isinstance(images, OpenBatch):
        edges = [torch.full((), edge, dtype=torch.float32) for edge in (width, height) * 2]
        return torch.stack(edges).expand(images.pixels.shape[0], 4)
    return torch.tensor((width, height) * 2, dtype=torch.float32, device=images.pixels.device).repeat(len(images), 1)


def size_factors(images: ImageBatch) -> Tensor:
    """(B, 4) width, height, width, height of each image: what shares of it are multiplied by."""
    if isinstance(images, OpenBatch):
        return images.sizes.flip(1).repeat(1, 2)
    return torch.tensor([(w, h, w, h) for h, w in images.sizes], dtype=torch.float32, device=images.pixels.device)


def set_detections(
    boxes: Tensor, scores: Tensor, labels: Tensor, images: ImageBatch, test: SetTest
) -> list[Detections]:
    """Detections from (B, N, 4) xyxy boxes in batch pixels, (B, N) scores, best first, and labels."""
    if isinstance(images, OpenBatch):
        return padded(to_output_frame(boxes, images, 0), scores, labels, test.score_threshold)
    detections = []
    for index in range(len(images)):
        found = Detections(to_output_frame(boxes[index], images, index), scores[index], labels[index])
        detections.append(found[found.scores > test.score_threshold])
    return detections


def boxes_in_pixels(shares: Tensor, sizes: Tensor) -> Tensor:
    """(..., B, N, 4) boxes as centre and size in 0..1 of each image to xyxy in batch pixels; ``sizes``: (B, 4)."""
    return cxcywh_to_xyxy(shares) * sizes[:, None]


def answers(
    shares: Tensor,
    query: Tensor,
    scores: Tensor,
    labels: Tensor,
    images: ImageBatch,
    test: SetTest,
    frame: Tensor | None = None,
) -> list[Detections]:
    """Detections from what the chosen queries say, cut to the images.

    shares: (B, Q, 4) boxes of all queries as centre and size in 0..1. query, scores, labels: (B, N), best first.
    frame: (B, 4) pixels that are 1; the images' own sizes where not given.
    """
    sizes = size_factors(images)
    boxes = boxes_in_pixels(shares, sizes if frame is None else frame)
    boxes = torch.minimum(boxes.clamp(min=0), sizes[:, None])
    return set_detections(boxes.gather(1, query[..., None].expand(-1, -1, 4)), scores, labels, images, test)


def best_answers(found: SetOutputs, images: ImageBatch, test: SetTest, frame: Tensor | None = None) -> list[Detections]:
    """Detections of the pairs of query and class that the last prediction scores best, by sigmoid; ``frame`` as of
    ``answers``."""
    scores, labels, query = best_pairs(found.logits[-1].sigmoid(), test.max_per_image)
    return answers(found.boxes[-1], query, scores, labels, images, test, frame)
