"""From loss elements to one number.

Shape letters: N elements.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = torch.finfo(torch.float32).eps


def weighted_sum(loss: Tensor, weight: Tensor | None, normalizer: float | Tensor) -> Tensor:
    """Sum of (N, ...) ``loss`` times ``weight`` (broadcast), divided by ``normalizer``; a scalar.

    An epsilon in the divisor keeps the loss of an empty batch finite.
    """
    if weight is not None:
        loss = loss * weight
    return loss.sum() / (normalizer + EPS)
