"""Greedy non-maximum suppression, over all boxes or inside groups (classes, pyramid levels).

Shape letters: N boxes, n boxes that are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Suppress inside each group every box whose IoU with a better kept one is above ``iou_threshold``.

    Equal to running ``torchvision.ops.nms`` on each group by itself. Boxes are compared as they are, not moved apart
    by group, so large coordinates lose no precision; the cost does not grow with the number of groups.

    boxes: (N, 4) xyxy. scores: (N,). groups: (N,) int64, any values.
    Returns: indices (n,) of what is kept, by descending score; of equal scores the lower index counts as better.
    Raises: for wrong shapes, dtypes or devices, and for NaN on the CPU.
    """
    backend.check_same_device(boxes=boxes, scores=scores, groups=groups)
    boxes, scores = backend.common_dtype(boxes, scores)
    implementation = torch.ops.sdk.batched_nms if backend.native(boxes) else reference.batched_nms
    order, kept = implementation(boxes, scores, groups, iou_threshold)
    return order[kept]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """``batched_nms`` with all boxes in one group."""
    return batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


if backend.LOADED:

    @torch.library.register_fake("sdk::batched_nms")
    def _(boxes, scores, groups, iou_threshold):
        return groups.new_empty(boxes.shape[0]), groups.new_empty(boxes.shape[0], dtype=torch.bool)
