"""Prediction on an image and on its mirror image.

Shape letters: B images, H x W padded pixels, h x w valid pixels of one image, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .detectors.single_stage import SingleStageDetector
from .structures import Detections, ImageBatch


@runtime_checkable
class CandidateHead(Protocol):
    """A head whose boxes can be had before suppression."""

    def candidates(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: Any) -> list[Detections]:
        """Boxes of each image before suppression."""
        ...

    def select(self, candidates: Detections, test: Any) -> Detections:
        """Suppression among the candidates of one image."""
        ...


def predict_with_flip(model: SingleStageDetector, images: ImageBatch) -> list[Detections]:
    """Detections of each image, of those found in it and in its mirror image together.

    Boxes of both are put together and suppressed once, as the scores of CornerNet were published (section 4.1).
    Raises: for a model whose head gives no boxes before suppression.
    """
    head = getattr(model, "bbox_head", None)
    if not isinstance(head, CandidateHead):
        found = type(model).__name__ if head is None else type(head).__name__
        raise ValueError(f"flip test: expected a head with candidates and select, such as CornerNet's, found {found}")
    seen = head.candidates(model.outputs(images), images, model.test)
    flipped = mirrored_images(images)
    mirrored = head.candidates(model.outputs(flipped), flipped, model.test)
    return [
        head.select(together([own, mirrored_detections(other, images.output_size(index)[1])]), model.test)
        for index, (own, other) in enumerate(zip(seen, mirrored))
    ]


def mirrored_images(images: ImageBatch) -> ImageBatch:
    """The batch with every image mirrored left to right at its own place; padding stays."""
    pixels = images.pixels.clone()
    for index, (height, width) in enumerate(images.sizes):
        left, top = images.offset(index)
        place = (index, slice(None), slice(top, top + height), slice(left, left + width))
        pixels[place] = images.pixels[place].flip(-1)
    return replace(images, pixels=pixels)


def mirrored_detections(found: Detections, width: float) -> Detections:
    """Detections mirrored left to right in an image of this width."""
    x1, y1, x2, y2 = found.boxes.unbind(dim=1)
    return replace(found, boxes=torch.stack((width - x2, y1, width - x1, y2), dim=1))


def together(parts: Sequence[Detections]) -> Detections:
    """Several detections of the same image, without masks, as one."""
    return Detections(
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.labels for part in parts]),
    )
