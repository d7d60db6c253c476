"""Multi-scale deformable attention (Zhu et al., 2021, "Deformable DETR", eq. 3).

Shape letters: B images, S values of all levels, Q queries, M heads, D channels of a head, L levels, P points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sum bilinear samples of every level, each times its attention weight.

    value: (B, S, M, D), levels one after another, each row by row. spatial_shapes: (L, 2) int64 of (height, width).
    level_start_index: (L,) int64, first value of each level. sampling_locations: (B, Q, M, L, P, 2) of (x, y), 0 to 1
    from edge to edge of the level; samples outside count 0. attention_weights: (B, Q, M, L, P).
    Returns: (B, Q, M * D) in the widest dtype of the inputs. Differentiable in value, locations and weights.
    Raises: for wrong shapes, dtypes or devices, and on the CPU for levels that leave the values.
    """
    backend.check_same_device(
        value=value,
        spatial_shapes=spatial_shapes,
        level_start_index=level_start_index,
        sampling_locations=sampling_locations,
        attention_weights=attention_weights,
    )
    value, sampling_locations, attention_weights = backend.common_dtype(value, sampling_locations, attention_weights)
    implementation = torch.ops.sdk.ms_deform_attn if backend.native(value) else reference.ms_deform_attn
    return implementation(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)


if backend.LOADED:

    @torch.library.register_fake("sdk::ms_deform_attn")
    def _(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
        return value.new_empty(value.shape[0], sampling_locations.shape[1], value.shape[2] * value.shape[3])

    @torch.library.register_fake("sdk::ms_deform_attn_backward")
    def _(grad, value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
        shapes = (value.shape, sampling_locations.shape, attention_weights.shape)
        return tuple(value.new_empty(shape) for shape in shapes)

    def _setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def _backward(ctx, grad):
        backend.refuse_if_deterministic("ms_deform_attn", grad)
        by_value, by_locations, by_weights = torch.ops.sdk.ms_deform_attn_backward(grad, *ctx.saved_tensors)
        return by_value, None, None, by_locations, by_weights

    torch.library.register_autograd("sdk::ms_deform_attn", _backward, setup_context=_setup)
