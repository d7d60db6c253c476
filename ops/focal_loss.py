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
    Returns: (N, K) in the dtype of the logits, not reduced. Differentiable in the logits.
    Raises: for wrong shapes, dtypes or devices, and on the CPU for labels out of range.
    """
    if weight is not None:
        weight = weight.to(logits.dtype)
    implementation = torch.ops.sdk.sigmoid_focal_loss if backend.native(logits) else reference.sigmoid_focal_loss
    return implementation(logits, labels, gamma, alpha, weight)
