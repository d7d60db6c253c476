"""Sigmoid focal loss (Lin et al., 2017, "Focal Loss for Dense Object Detection", eq. 5), fused.

Shape letters: N predictions, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def sigmoid_focal_loss(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float = 0.25, weight: Tensor | None = None
) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t of every prediction and class, without temporaries in the native kernel.

    logits: (N, K). labels: (N,) int64, 0 to K - 1, or K for background. weight: (N,) factor of each prediction.
    Returns: (N, K) in the dtype of the logits, not reduced. Differentiable in logits and weight.
    Raises: for wrong shapes, dtypes or devices, and on the CPU for labels out of range.
    """
    backend.check_same_device(logits=logits, labels=labels, weight=weight)
    if weight is not None:
        weight = weight.to(logits.dtype)
    implementation = torch.ops.sdk.sigmoid_focal_loss if backend.native(logits) else reference.sigmoid_focal_loss
    return implementation(logits, labels, gamma, alpha, weight)


if backend.LOADED:

    @torch.library.register_fake("sdk::sigmoid_focal_loss")
    def _(logits, labels, gamma, alpha, weight):
        return logits.new_empty(logits.shape)

    @torch.library.register_fake("sdk::sigmoid_focal_loss_backward")
    def _(grad, logits, labels, gamma, alpha, weight):
        return logits.new_empty(logits.shape), logits.new_empty(logits.shape[0])

    def _setup(ctx, inputs, output):
        logits, labels, ctx.gamma, ctx.alpha, weight = inputs
        ctx.save_for_backward(logits, labels, weight)

    def _backward(ctx, grad):
        logits, labels, weight = ctx.saved_tensors
        by_logits, by_weight = torch.ops.sdk.sigmoid_focal_loss_backward(
            grad, logits, labels, ctx.gamma, ctx.alpha, weight
        )
        return by_logits, None, None, None, None if weight is None else by_weight

    torch.library.register_autograd("sdk::sigmoid_focal_loss", _backward, setup_context=_setup)
