"""Overlap of boxes: IoU, IoF (intersection over the first box) and GIoU (Rezatofighi et al., 2019).

Shape letters: N and M boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def pairwise_iou(a: Tensor, b: Tensor, kind: str = "iou", eps: float = 1e-6) -> Tensor:
    """Overlap of every box of ``a`` with every box of ``b``, without temporaries of (N, M, 2) in the native kernel.

    Areas are products of the sides as they are; unions and enclosing areas are at least ``eps``. Differentiable.

    a: (N, 4) xyxy. b: (M, 4) xyxy. kind: "iou", "iof" or "giou".
    Returns: (N, M) in the wider dtype of both; half precision is computed in float32.
    Raises: for wrong shapes, dtypes, devices or kind, and for NaN on the CPU.
    """
    a, b = backend.common_dtype(a, b)
    implementation = torch.ops.sdk.pairwise_iou if backend.native(a) else reference.pairwise_iou
    return implementation(a, b, kind, eps)


def elementwise_iou(a: Tensor, b: Tensor, kind: str = "iou", eps: float = 1e-6) -> Tensor:
    """Overlap of the i-th box of ``a`` with the i-th box of ``b``; as ``pairwise_iou`` in everything else.

    a: (N, 4) xyxy. b: (N, 4) xyxy. Returns: (N,).
    """
    a, b = backend.common_dtype(a, b)
    return reference.elementwise_iou(a, b, kind, eps)
