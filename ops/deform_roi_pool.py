"""Deformable RoI pooling (Dai et al., 2017, "Deformable Convolutional Networks", section 2.2).

Shape letters: B images, C channels, H x W pixels of the feature map, K regions, P x Q bins of a region.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Average each bin over a grid of bilinear samples, the bin moved by its offset.

    The modulated variant (Zhu et al., 2019) multiplies the result by its mask.

    input: (B, C, H, W). rois: (K, 5) of image index and xyxy in image pixels; aligned, so half a feature pixel is
        taken off after scaling. offset: (K, 2, P, Q) of x and y shifts in units of ``gamma`` times the region's width
        and height, or none for plain pooling. output_size: P and Q. spatial_scale: feature pixels an image pixel.
        sampling_ratio: samples along each side of a bin; 0 takes one a feature pixel, rounded up.
    Returns: (K, C, P, Q) in the widest dtype of the inputs. Differentiable in input and offset.
    Raises: for wrong shapes, dtypes or devices, and on the CPU for image indices out of range.
    """
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    backend.check_same_device(input=input, rois=rois, offset=offset)
    if offset is None:
        input, rois = backend.common_dtype(input, rois)
    else:
        input, rois, offset = backend.common_dtype(input, rois, offset)
    implementation = torch.ops.sdk.deform_roi_pool if backend.native(input) else reference.deform_roi_pool
    return implementation(input, rois, offset, height, width, spatial_scale, sampling_ratio, gamma)


if backend.LOADED:

    @torch.library.register_fake("sdk::deform_roi_pool")
    def _(input, rois, offset, output_height, output_width, spatial_scale, sampling_ratio, gamma):
        return input.new_empty(rois.shape[0], input.shape[1], output_height, output_width)

    @torch.library.register_fake("sdk::deform_roi_pool_backward")
    def _(grad, input, rois, offset, output_height, output_width, spatial_scale, sampling_ratio, gamma):
        regions = 0 if offset is None else rois.shape[0]
        return input.new_empty(input.shape), input.new_empty(regions, 2, output_height, output_width)

    def _setup(ctx, inputs, output):
        input, rois, offset, *ctx.numbers = inputs
        ctx.save_for_backward(input, rois, offset)

    def _backward(ctx, grad):
        input, rois, offset = ctx.saved_tensors
        backend.refuse_if_deterministic("deform_roi_pool", grad)
        by_input, by_offset = torch.ops.sdk.deform_roi_pool_backward(grad, input, rois, offset, *ctx.numbers)
        return by_input, None, None if offset is None else by_offset, *[None] * len(ctx.numbers)

    torch.library.register_autograd("sdk::deform_roi_pool", _backward, setup_context=_setup)
