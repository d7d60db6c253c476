"""Post-processing of an OpenBatch: from scores and boxes to detections in sizes that do not depend on the images.

Candidates are a fixed number, those that do not count score ``NOT_THERE``, and results are padded.

Shape letters: B images, P priors or regions, N candidates of an image, K classes, D numbers of a code, M detections of
an image at most, G groups whose boxes suppress each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..boxes import to_output_frame
from ..settings import DenseTest, RoITest
from ..structures import Detections, ImageSize, OpenBatch, Suppress

NOT_THERE = -1.0
"""Score of what is no candidate."""


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The (B, count) best of (B, N) scores and their places, also where there are fewer; places of what is not there
    are 0."""
    # With as many more that do not count there are enough of them on the smallest map.
    filling = scores.new_full((1, count), NOT_THERE).expand(scores.shape[0], -1)
    values, index = torch.cat((scores, filling), dim=1).topk(count, dim=1)
    return values, torch.where(values > 0, index, 0)


def take(values: Tensor, index: Tensor) -> Tensor:
    """(B, P, D) values at (B, N) places: (B, N, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def unsuppressed(boxes: Tensor, scores: Tensor, suppress: Suppress, overlap: float, most: int) -> Tensor:
    """(G, C, N) scores of (G, N, 4) boxes with ``NOT_THERE`` for those that a better one of their group and class
    suppresses."""
    kept = suppress(boxes, scores, overlap, most)
    one = torch.ones_like(kept[:, 0], dtype=scores.dtype)
    stays = torch.zeros_like(scores).index_put((kept[:, 0], kept[:, 1], kept[:, 2]), one)
    return torch.where(stays > 0, scores, NOT_THERE)


def padded(boxes: Tensor, scores: Tensor, labels: Tensor, least: float = 0.0) -> list[Detections]:
    """(B, M, 4) boxes, (B, M) scores, best first, and labels as detections; what scores ``least`` or less is not
    there."""
    there = scores > least
    return [
        Detections(
            torch.where(there[..., None], boxes, 0.0), torch.where(there, scores, 0.0), torch.where(there, labels, -1)
        )
    ]


def open_dense_detections(
    scores: Sequence[Tensor],
    codes: Sequence[Tensor],
    priors: Sequence[Tensor],
    decode: Callable[[Tensor, Tensor, ImageSize], Tensor],
    images: OpenBatch,
    test: DenseTest,
    factors: Sequence[Tensor] | None = None,
) -> list[Detections]:
    """``dense_detections`` of an OpenBatch."""
    boxes, values, labels = [], [], []
    limit, classes = test.candidates_per_level, scores[0].shape[2]
    for level, level_priors in enumerate(priors):
        counted = torch.where(scores[level] > test.score_threshold, scores[level], NOT_THERE)
        value, index = best(counted.flatten(1), limit)
        prior = torch.div(index, classes, rounding_mode="floor")
        code = take(codes[level], prior)
        # As one long list, since decoders know no images.
        box = decode(level_priors[prior.flatten()], code.flatten(0, 1), images.each_size(limit))
        boxes.append(box.unflatten(0, (-1, limit)))
        if factors is not None:
            value = torch.where(value > 0, value * factors[level].gather(1, prior), NOT_THERE)
        values.append(value)
        labels.append(index % classes)
    box, value, label = (torch.cat(parts, dim=1) for parts in (boxes, values, labels))
    box = to_output_frame(box, images, 0)
    own = label[:, None] == torch.arange(classes, device=label.device)[:, None]
    each = torch.where(own, value[:, None], NOT_THERE)
    value = unsuppressed(box, each, images.suppress, test.nms_threshold, test.max_per_image).amax(dim=1)
    value, index = best(value, test.max_per_image)
    return padded(take(box, index), value, label.gather(1, index))


def open_region_detections(
    boxes: Tensor, scores: Tensor, images: OpenBatch, test: DenseTest | RoITest, factors: Tensor | None = None
) -> list[Detections]:
    """Scores of every class of every region to detections, as ``multiclass_nms``.

    boxes: (B, P, 4), or (B, P, K, 4) where each class has its own, in batch pixels. scores: (B, P, K) without
    background. factors: (B, P) by which scores above the threshold are multiplied.
    """
    classes, own_boxes = scores.shape[2], boxes.ndim == 4
    boxes = to_output_frame(boxes, images, 0)
    weighted = scores if factors is None else scores * factors[..., None]
    counted = torch.where(scores > test.score_threshold, weighted, NOT_THERE).transpose(1, 2)
    if own_boxes:
        groups, each = boxes.transpose(1, 2).flatten(0, 1), counted.flatten(0, 1)[:, None]
    else:
        groups, each = boxes, counted
    value = unsuppressed(groups, each, images.suppress, test.nms_threshold, test.max_per_image)
    value, index = best(value.reshape(scores.shape[0], -1), test.max_per_image)
    # As a tensor: ONNX divides by none but these where the number of regions is open.
    regions = torch.full((), scores.shape[1], dtype=torch.int64, device=scores.device)
    label = torch.div(index, regions, rounding_mode="floor")
    if own_boxes:
        found = take(boxes.transpose(1, 2).flatten(1, 2), index)
    else:
        found = take(boxes, index % regions)
    return padded(found, value, torch.where(value > 0, label.clamp(max=classes - 1), -1))
