"""Soft-NMS (Bodla et al., 2017): overlapping boxes lose score instead of being dropped at once.

Shape letters: N boxes, n boxes that are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference

METHODS = ("hard", "linear", "gaussian")


def batched_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    iou_threshold: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
) -> tuple[Tensor, Tensor]:
    """Soft-NMS inside each group.

    The best box left is taken; every other of its group with overlap o has its score multiplied: by 0 where
    o >= ``iou_threshold`` ("hard"), by 1 - o where o >= ``iou_threshold`` ("linear", eq. 2 of the paper), by
    exp(-o^2 / ``sigma``) ("gaussian", eq. 3). Boxes whose score falls below ``min_score`` are dropped, save the very
    best one.

    boxes: (N, 4) xyxy. scores: (N,). groups: (N,) int64, any values.
    Returns: decayed scores (n,), descending, and indices (n,) of their boxes; of equal scores the lower index is first.
    Raises: for wrong shapes, dtypes, devices or method, and for NaN on the CPU.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
    backend.check_same_device(boxes=boxes, scores=scores, groups=groups)
    boxes, scores = backend.common_dtype(boxes, scores)
    implementation = torch.ops.sdk.batched_soft_nms if backend.native(boxes) else reference.batched_soft_nms
    decayed, kept = implementation(boxes, scores, groups, iou_threshold, sigma, min_score, METHODS.index(method))
    keep = kept.nonzero().squeeze(1)
    scores, order = decayed[keep].sort(descending=True, stable=True)
    return scores, keep[order]


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
) -> tuple[Tensor, Tensor]:
    """``batched_soft_nms`` with all boxes in one group."""
    groups = torch.zeros_like(scores, dtype=torch.int64)
    return batched_soft_nms(boxes, scores, groups, iou_threshold, sigma, min_score, method)


if backend.LOADED:

    @torch.library.register_fake("sdk::batched_soft_nms")
    def _(boxes, scores, groups, iou_threshold, sigma, min_score, method):
        return torch.empty_like(scores), groups.new_empty(boxes.shape[0], dtype=torch.bool)
