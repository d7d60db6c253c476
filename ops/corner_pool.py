"""Corner pooling (Law and Deng, 2018, "CornerNet", eq. 5 and 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def corner_pool(x: Tensor, direction: str) -> Tensor:
    """Running maximum along one axis of x (B, C, H, W).

    direction: the side towards which maxima are carried: "top" (each pixel gets the maximum of itself and all below),
    "bottom" (all above), "left" (all to its right), "right" (all to its left).
    Returns: (B, C, H, W). Differentiable: the gradient goes to the maximum, of equal ones to the nearest.
    Raises: for a wrong shape, dtype or direction.
    """
    implementation = torch.ops.sdk.corner_pool if backend.native(x) else reference.corner_pool
    return implementation(x, direction)
