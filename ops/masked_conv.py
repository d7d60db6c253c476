"""Convolution computed only where a mask says so (Guided Anchoring, Wang et al., 2019, section 3.2).

Shape letters: B images, C channels in, O channels out, H x W pixels in, h x w pixels out, KH x KW kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def masked_conv2d(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int | tuple[int, int] = 0,
    stride: int | tuple[int, int] = 1,
) -> Tensor:
    """A dense convolution times the mask; the bias counts at kept positions only.

    x: (B, C, H, W). mask: (B, h, w) or (1, h, w) for all images; kept where true or above 0. weight: (O, C, KH, KW).
    bias: (O,). padding, stride: of rows and columns.
    Returns: (B, O, h, w) in the widest dtype of the inputs. Differentiable in x, weight and bias.
    Raises: for wrong shapes, dtypes or devices.
    """
    backend.check_same_device(x=x, mask=mask, weight=weight, bias=bias)
    if bias is None:
        x, weight = backend.common_dtype(x, weight)
    else:
        x, weight, bias = backend.common_dtype(x, weight, bias)
    implementation = torch.ops.sdk.masked_conv2d if backend.native(x) else reference.masked_conv2d
    return implementation(x, mask > 0, weight, bias, _pair(padding), _pair(stride))


if backend.LOADED:

    @torch.library.register_fake("sdk::masked_conv2d")
    def _(x, mask, weight, bias, padding, stride):
        return x.new_empty(x.shape[0], weight.shape[0], mask.shape[1], mask.shape[2])

    def _setup(ctx, inputs, output):
        x, mask, weight, bias, ctx.padding, ctx.stride = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, mask, weight)

    def _backward(ctx, grad):
        # Dense: training reads gradients nearly everywhere.
        x, mask, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[2], ctx.has_bias and ctx.needs_input_grad[3]]
        by_x, by_weight, by_bias = torch.ops.aten.convolution_backward(
            grad.masked_fill(~mask.unsqueeze(1), 0),
            x,
            weight,
            [len(weight)],
            ctx.stride,
            ctx.padding,
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=1,
            output_mask=wanted,
        )
        return by_x, None, by_weight, by_bias, None, None

    torch.library.register_autograd("sdk::masked_conv2d", _backward, setup_context=_setup)
