"""Corner pooling (Law and Deng, 2018, "CornerNet", eq. 5 and 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference

DIRECTIONS = ("top", "bottom", "left", "right")


def corner_pool(x: Tensor, direction: str) -> Tensor:
    """Running maximum along one axis of x (B, C, H, W).

    direction: the side towards which maxima are carried: "top" (each pixel gets the maximum of itself and all below),
    "bottom" (all above), "left" (all to its right), "right" (all to its left).
    Returns: (B, C, H, W). Differentiable: the gradient goes to the maximum, of equal ones to the nearest.
    Raises: for a wrong shape, dtype or direction.
    """
    if not backend.native(x):
        return reference.corner_pool(x, direction)
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected one of {', '.join(DIRECTIONS)}, found {direction!r}")
    return torch.ops.sdk.corner_pool(x, DIRECTIONS.index(direction))


if backend.LOADED:

    @torch.library.register_fake("sdk::corner_pool")
    def _(x, direction):
        return x.new_empty(x.shape)

    @torch.library.register_fake("sdk::corner_pool_backward")
    def _(grad, x, direction):
        return x.new_empty(x.shape)

    def _setup(ctx, inputs, output):
        x, ctx.direction = inputs
        ctx.save_for_backward(x)

    def _backward(ctx, grad):
        return torch.ops.sdk.corner_pool_backward(grad, *ctx.saved_tensors, ctx.direction), None

    torch.library.register_autograd("sdk::corner_pool", _backward, setup_context=_setup)
