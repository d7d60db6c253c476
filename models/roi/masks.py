"""Masks of detected regions at test time.

Shape letters: R detected regions of all images, K classes, M mask size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...ops.paste_masks import paste_masks
from ..boxes import to_batch_frame
from ..structures import Detections, ImageBatch, OpenBatch
from .rois import to_rois


class RegionMasks(NamedTuple):
    """What a mask branch says of the detections of all images, in order.

    probabilities: (R, K, M, M), or (R, 1, M, M) where a region has one mask whatever its class. overlaps: (R,) IoU
    that each mask is expected to have with its object, or none.
    """

    probabilities: Tensor
    overlaps: Tensor | None = None


MaskBranch = Callable[[Sequence[Detections]], RegionMasks]
"""The mask branch on the features of a batch: from detections of each of its images to their masks."""


def detected_rois(detections: Sequence[Detections], images: ImageBatch) -> Tensor:
    """(R, 5) regions in batch pixels of the detections of each image."""
    if isinstance(images, OpenBatch):
        return to_rois([to_batch_frame(detections[0].boxes, images, 0)])
    return to_rois([to_batch_frame(found.boxes, images, index) for index, found in enumerate(detections)])


def own_class(masks: Tensor, labels: Tensor) -> Tensor:
    """(R, K, M, M) masks of every class, or (R, 1, M, M), to the (R, M, M) of each region's label."""
    if masks.shape[1] == 1:
        return masks[:, 0]
    return masks[torch.arange(masks.shape[0], device=masks.device), labels]


def paste_detections(
    masks: RegionMasks, detections: Sequence[Detections], images: ImageBatch, threshold: float
) -> list[Detections]:
    """Detections with full-size masks; where overlaps are known, these times the scores are the masks' scores.

    Those of an OpenBatch have (B, M, S, S) probabilities of the boxes.
    """
    if isinstance(images, OpenBatch):
        found, most = detections[0], detections[0].labels.shape[1]
        own = own_class(masks.probabilities, found.labels.flatten().clamp(min=0)).unflatten(0, (-1, most))
        overlap = None if masks.overlaps is None else masks.overlaps.unflatten(0, (-1, most)) * found.scores
        return [replace(found, masks=own, mask_scores=overlap)]
    counts = [len(found) for found in detections]
    overlaps = [None] * len(detections) if masks.overlaps is None else masks.overlaps.split(counts)
    result = []
    for index, (found, own, overlap) in enumerate(zip(detections, masks.probabilities.split(counts), overlaps)):
        pasted = paste_masks(own_class(own, found.labels), found.boxes, images.output_size(index), threshold)
        mask_scores = None if overlap is None else overlap * found.scores
        result.append(replace(found, masks=pasted, mask_scores=mask_scores))
    return result
