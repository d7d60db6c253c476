"""Content-aware reassembly of features (Wang et al., 2019, "CARAFE", eq. 2).

Shape letters: B images, C channels, H x W pixels, s scale factor, k kernel size, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def carafe(features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale_factor: int) -> Tensor:
    """Upsample: each output pixel is a sum over the k x k window around its source pixel, weighted by its own kernel.

    features: (B, C, H, W); outside the map they count 0. masks: (B, G * k * k, H * s, W * s), the kernels as they
    are (normalize before). kernel_size: k, odd. groups: G, divides C; each group of channels has its own kernels.
    Returns: (B, C, H * s, W * s) in the wider dtype of both. Differentiable in both.
    Raises: for wrong shapes, dtypes or devices.
    """
    backend.check_same_device(features=features, masks=masks)
    features, masks = backend.common_dtype(features, masks)
    implementation = torch.ops.sdk.carafe if backend.native(features) else reference.carafe
    return implementation(features, masks, kernel_size, groups, scale_factor)


if backend.LOADED:

    @torch.library.register_fake("sdk::carafe")
    def _(features, masks, kernel_size, groups, scale_factor):
        batch, channels, height, width = features.shape
        return features.new_empty(batch, channels, height * scale_factor, width * scale_factor)

    @torch.library.register_fake("sdk::carafe_backward")
    def _(grad, features, masks, kernel_size, groups, scale_factor):
        return features.new_empty(features.shape), masks.new_empty(masks.shape)

    def _setup(ctx, inputs, output):
        features, masks, *ctx.numbers = inputs
        ctx.save_for_backward(features, masks)

    def _backward(ctx, grad):
        return *torch.ops.sdk.carafe_backward(grad, *ctx.saved_tensors, *ctx.numbers), None, None, None

    torch.library.register_autograd("sdk::carafe", _backward, setup_context=_setup)
