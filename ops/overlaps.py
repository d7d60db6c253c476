"""Overlap of boxes: IoU, IoF (intersection over the first box) and GIoU (Rezatofighi et al., 2019).

Shape letters: N and M boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference

KINDS = ("iou", "iof", "giou")


def pairwise_iou(a: Tensor, b: Tensor, kind: str = "iou", eps: float = 1e-6) -> Tensor:
    """Overlap of every box of ``a`` with every box of ``b``, without temporaries of (N, M, 2) in the native kernel.

    Areas are products of the sides as they are; unions and enclosing areas are at least ``eps``. Differentiable.

    a: (N, 4) xyxy. b: (M, 4) xyxy. kind: "iou", "iof" or "giou".
    Returns: (N, M) in the wider dtype of both; half precision is computed in float32.
    Raises: for wrong shapes, dtypes, devices or kind, and for NaN on the CPU.
    """
    backend.check_same_device(a=a, b=b)
    a, b = backend.common_dtype(a, b)
    if not backend.native(a):
        return reference.pairwise_iou(a, b, kind, eps)
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    return torch.ops.sdk.pairwise_iou(a, b, KINDS.index(kind), eps)


def elementwise_iou(a: Tensor, b: Tensor, kind: str = "iou", eps: float = 1e-6) -> Tensor:
    """Overlap of the i-th box of ``a`` with the i-th box of ``b``; as ``pairwise_iou`` in everything else.

    a: (N, 4) xyxy. b: (N, 4) xyxy. Returns: (N,).
    """
    backend.check_same_device(a=a, b=b)
    a, b = backend.common_dtype(a, b)
    return reference.elementwise_iou(a, b, kind, eps)


if backend.LOADED:

    @torch.library.register_fake("sdk::pairwise_iou")
    def _(a, b, kind, eps):
        return a.new_empty(a.shape[0], b.shape[0])

    @torch.library.register_fake("sdk::pairwise_iou_backward")
    def _(grad, a, b, kind, eps):
        return a.new_empty(a.shape), b.new_empty(b.shape)

    def _setup(ctx, inputs, output):
        a, b, ctx.kind, ctx.eps = inputs
        ctx.save_for_backward(a, b)

    def _backward(ctx, grad):
        return *torch.ops.sdk.pairwise_iou_backward(grad, *ctx.saved_tensors, ctx.kind, ctx.eps), None, None

    torch.library.register_autograd("sdk::pairwise_iou", _backward, setup_context=_setup)
