"""From the scores and boxes of every location to detections.

Shape letters: B images, P priors, K classes, D numbers of a code, N candidates or detections of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...ops.nms import batched_nms
from ...ops.soft_nms import batched_soft_nms
from ..boxes import to_output_frame
from ..settings import DenseTest, SoftNMS
from ..structures import Detections, ImageBatch, ImageSize, OpenBatch
from .open_sizes import open_dense_detections


def top_candidates(scores: Tensor, threshold: float, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of prior and class above a threshold: (N,) scores, labels and prior indices, N <= limit.

    scores: (P, K) of one level. Work is linear in P K, and N log N in what is above the threshold.
    """
    prior, label = (scores > threshold).nonzero(as_tuple=True)
    values = scores[prior, label]
    if len(values) > limit:
        values, order = values.topk(limit)
        prior, label = prior[order], label[order]
    return values, label, prior


def best_pairs(scores: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of query and class of each image: (B, N) scores, labels and query indices, best first.

    scores: (B, P, K). N is ``limit`` or all P K. Nothing is suppressed.
    """
    classes = scores.shape[2]
    values, index = scores.flatten(1).topk(min(limit, scores.shape[1] * classes), dim=1)
    return values, index % classes, index // classes


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    nms_threshold: float,
    max_per_image: int,
    soft_nms: SoftNMS | None = None,
) -> tuple[Tensor, Tensor]:
    """NMS class by class: indices of the kept boxes, best first, and their scores (lowered by soft-NMS)."""
    if soft_nms is None:
        keep = batched_nms(boxes, scores, labels, nms_threshold)[:max_per_image]
        return keep, scores[keep]
    new_scores, keep = batched_soft_nms(
        boxes,
        scores,
        labels,
        iou_threshold=nms_threshold,
        sigma=soft_nms.sigma,
        min_score=soft_nms.min_score,
        method=soft_nms.method,
    )
    return keep[:max_per_image], new_scores[:max_per_image]


def detections_from_candidates(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    images: ImageBatch,
    index: int,
    test: DenseTest,
    factors: Tensor | None = None,
) -> Detections:
    """Candidates of one image, of all levels together, to its detections.

    boxes: (N, 4) in batch pixels. factors: (N,) by which scores are multiplied before suppression (centerness).
    """
    boxes = to_output_frame(boxes, images, index)
    if factors is not None:
        scores = scores * factors
    keep, scores = suppress(
        boxes,
        scores,
        labels,
        nms_threshold=test.nms_threshold,
        max_per_image=test.max_per_image,
        soft_nms=test.soft_nms,
    )
    return Detections(boxes[keep], scores, labels[keep])


def dense_detections(
    scores: Sequence[Tensor],
    codes: Sequence[Tensor],
    priors: Sequence[Tensor],
    decode: Callable[[Tensor, Tensor, ImageSize], Tensor],
    images: ImageBatch,
    test: DenseTest,
    factors: Sequence[Tensor] | None = None,
) -> list[Detections]:
    """Detections of each image from what a head says at every prior of every level.

    scores: (B, P, K) of each level, in 0..1. codes: (B, P, D) of each level. priors: (P, ...) of each level.
    decode: (N, ...) priors, (N, D) codes and the image's (h, w) to (N, 4) boxes. factors: (B, P) of each level, by
    which the scores of the candidates are multiplied once these are chosen (centerness).
    """
    if isinstance(images, OpenBatch):
        return open_dense_detections(scores, codes, priors, decode, images, test, factors)
    detections = []
    for index, size in enumerate(images.sizes):
        boxes, values, labels, weights = [], [], [], []
        for level, level_priors in enumerate(priors):
            value, label, prior = top_candidates(scores[level][index], test.score_threshold, test.candidates_per_level)
            boxes.append(decode(level_priors[prior], codes[level][index][prior], size))
            values.append(value)
            labels.append(label)
            if factors is not None:
                weights.append(factors[level][index][prior])
        detections.append(
            detections_from_candidates(
                torch.cat(boxes),
                torch.cat(values),
                torch.cat(labels),
                images,
                index,
                test,
                None if factors is None else torch.cat(weights),
            )
        )
    return detections


def multiclass_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_per_image: int,
    soft_nms: SoftNMS | None = None,
    factors: Tensor | None = None,
) -> tuple[Detections, Tensor]:
    """Scores of every class of every region to detections, and the (N,) region that each comes from.

    boxes: (P, 4), or (P, K, 4) where each class has its own. scores: (P, K) without background. factors: (P,) by which
    the scores above the threshold are multiplied before suppression.
    """
    region, label = (scores > score_threshold).nonzero(as_tuple=True)
    values = scores[region, label]
    if factors is not None:
        values = values * factors[region]
    candidates = boxes[region, label] if boxes.ndim == 3 else boxes[region]
    keep, values = suppress(
        candidates,
        values,
        label,
        nms_threshold=nms_threshold,
        max_per_image=max_per_image,
        soft_nms=soft_nms,
    )
    return Detections(candidates[keep], values, label[keep]), region[keep]


def no_detections(device: torch.device) -> Detections:
    """Detections of an image in which nothing is found."""
    return Detections(
        torch.zeros(0, 4, device=device),
        torch.zeros(0, device=device),
        torch.zeros(0, dtype=torch.int64, device=device),
    )
