"""Test-time augmentation: detections from several views of an image, at other scales and mirrored.

Boxes that are found in any view, before suppression, are put together in the pixels of the original image and
suppressed once, by the detector's own test settings. This is how the multi-scale scores of dense heads and of pairs of
corners were published (MMDetection; Law and Deng, "CornerNet", section 4.1), score voting being left out. Boxes of
second stages are merged the same way (as in Detectron2); then the masks of the boxes that are kept are predicted in
every view, and their probabilities averaged (He et al., "Mask R-CNN", "Enhanced Results on COCO"). A detector that
offers no boxes before suppression, such as one that predicts a set, gives its detections instead, which are suppressed
once more and keep the masks that came with them.

Shape letters: B images, H x W padded pixels, h x w valid pixels of one image, N boxes, V views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .dense.postprocess import suppress
from .detectors.base import Candidates
from .roi.masks import MaskBranch, RegionMasks, paste_detections
from .structures import Detections, ImageBatch

FLIPS: Mapping[str, tuple[int, ...]] = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}
"""Axes of (..., H, W) that each mirroring turns round."""
OVERLAP = 0.5
"""IoU above which the lower of two boxes of a class goes where a detector has no such setting of its own."""


@dataclass(frozen=True)
class TTA:
    """In which views an image is seen.

    scales: factors of the size at which the recipe tests. flips: ``horizontal`` (left becomes right), ``vertical`` or
    ``diagonal`` (both); at each scale the image is seen as it is, and mirrored in each of these ways.
    """

    scales: tuple[float, ...] = (1.0,)
    flips: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.scales or any(not (math.isfinite(scale) and scale > 0) for scale in self.scales):
            raise ValueError(f"TTA.scales: expected one or more positive factors, found {self.scales!r}")
        if isinstance(self.flips, str) or any(flip not in FLIPS for flip in self.flips):
            raise ValueError(f"TTA.flips: expected some of {', '.join(FLIPS)}, found {self.flips!r}")

    def __str__(self) -> str:
        return f"scales {', '.join(f'{scale:g}' for scale in self.scales)}; flips {', '.join(self.flips) or 'none'}"


@runtime_checkable
class FindsCandidates(Protocol):
    """A detector whose boxes can be had before suppression."""

    def candidates(self, images: ImageBatch, *given: Any) -> Candidates:
        """What is found in a batch before suppression; arguments as of ``predict``."""
        ...


def predict_views(
    model: nn.Module,
    batches: Sequence[ImageBatch],
    flips: Sequence[str] = (),
    proposals: Sequence[Sequence[Tensor]] | None = None,
) -> list[Detections]:
    """Detections of each image, of those found in all of its views together.

    model: a detector. batches: the same images once at each scale. flips: see ``TTA``; mirrored views are made here.
    proposals: of each batch, for each image (P, 4) boxes in batch pixels, for detectors that read them.
    Returns: as of ``predict``, and exactly that for a single view.
    Raises: ValueError where the batches do not say alike in which pixels detections are wanted.
    """
    given = [None] * len(batches) if proposals is None else proposals
    if len(batches) == 1 and not flips:
        return predicted(model, batches[0], given[0])
    first = batches[0]
    sizes = [first.output_size(index) for index in range(len(first))]
    if any([batch.output_size(index) for index in range(len(batch))] != sizes for batch in batches):
        raise ValueError("views of the same images: expected the same original_sizes in every batch")
    views: list[tuple[tuple[int, ...], Candidates]] = []
    for batch, boxes in zip(batches, given, strict=True):
        for axes in ((), *(FLIPS[flip] for flip in flips)):
            seen = candidates(model, mirrored_images(batch, axes), mirrored_proposals(boxes, batch, axes))
            views.append((axes, seen))
    test = getattr(model, "test", None)
    found = []
    for index, size in enumerate(sizes):
        parts = [mirrored_detections(seen.boxes[index], size, axes) for axes, seen in views]
        found.append(suppressed(together(parts), test))
    branches = [(axes, seen.masks) for axes, seen in views if seen.masks is not None]
    if not branches:
        return found
    return paste_detections(mean_masks(branches, found, sizes), found, first, test.mask_threshold)  # type: ignore[union-attr]


def candidates(model: nn.Module, images: ImageBatch, proposals: Sequence[Tensor] | None) -> Candidates:
    """Boxes before suppression, or the detections of a detector that offers none."""
    if not isinstance(model, FindsCandidates):
        return Candidates(predicted(model, images, proposals))
    return model.candidates(images) if proposals is None else model.candidates(images, proposals)


def predicted(model: nn.Module, images: ImageBatch, proposals: Sequence[Tensor] | None) -> list[Detections]:
    """What a detector finds in a batch."""
    return model.predict(images) if proposals is None else model.predict(images, proposals)  # type: ignore[operator]


def mirrored_images(images: ImageBatch, axes: tuple[int, ...]) -> ImageBatch:
    """The batch with every image mirrored at its own place; padding stays."""
    pixels = images.pixels.clone()
    for index, (height, width) in enumerate(images.sizes):
        left, top = images.offset(index)
        place = (index, slice(None), slice(top, top + height), slice(left, left + width))
        pixels[place] = images.pixels[place].flip(axes)
    return replace(images, pixels=pixels)


def mirrored_proposals(
    proposals: Sequence[Tensor] | None, images: ImageBatch, axes: tuple[int, ...]
) -> list[Tensor] | None:
    """(P, 4) boxes of each image, in batch pixels, as they lie in the mirrored batch."""
    if proposals is None:
        return None
    corners = [images.offset(index) for index in range(len(images))]
    frames = [(h + 2 * top, w + 2 * left) for (h, w), (left, top) in zip(images.sizes, corners)]
    return [mirrored_boxes(own, frame, axes) for own, frame in zip(proposals, frames, strict=True)]


def mirrored_boxes(boxes: Tensor, size: tuple[int, int], axes: tuple[int, ...]) -> Tensor:
    """(N, 4) xyxy boxes mirrored in an image of (h, w)."""
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    if -1 in axes:
        x1, x2 = size[1] - x2, size[1] - x1
    if -2 in axes:
        y1, y2 = size[0] - y2, size[0] - y1
    return torch.stack((x1, y1, x2, y2), dim=1)


def mirrored_detections(found: Detections, size: tuple[int, int], axes: tuple[int, ...]) -> Detections:
    """Detections mirrored in an image of (h, w), with their masks where they have some."""
    masks = None if found.masks is None else found.masks.flip(axes)
    return replace(found, boxes=mirrored_boxes(found.boxes, size, axes), masks=masks)


def together(parts: Sequence[Detections]) -> Detections:
    """Several detections of the same image as one; masks and their scores where all have them."""

    def joined(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        return torch.cat(known) if len(known) == len(values) else None

    return Detections(
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.labels for part in parts]),
        joined([part.masks for part in parts]),
        joined([part.mask_scores for part in parts]),
    )


def suppressed(found: Detections, test: Any) -> Detections:
    """Suppression class by class among what is found in one image, by a detector's test settings."""
    keep, scores = suppress(
        found.boxes,
        found.scores,
        found.labels,
        nms_threshold=getattr(test, "nms_threshold", OVERLAP),
        max_per_image=getattr(test, "max_per_image", 100),
        soft_nms=getattr(test, "soft_nms", None),
    )
    return replace(found[keep], scores=scores)


def mean_masks(
    branches: Sequence[tuple[tuple[int, ...], MaskBranch]],
    found: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
) -> RegionMasks:
    """What the mask branches of all views say of the same detections, averaged.

    branches: for each view the axes that it turns round, and its mask branch. sizes: (h, w) of each image.
    """
    said = []
    for axes, branch in branches:
        masks = branch([mirrored_detections(own, size, axes) for own, size in zip(found, sizes, strict=True)])
        said.append(masks._replace(probabilities=masks.probabilities.flip(axes)))
    overlaps = [masks.overlaps for masks in said if masks.overlaps is not None]
    return RegionMasks(
        torch.stack([masks.probabilities for masks in said]).mean(dim=0),
        torch.stack(overlaps).mean(dim=0) if overlaps else None,
    )
