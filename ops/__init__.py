"""Native and reference ops, one file each."""

# Each file registers the gradients and fake kernels of its native op: all are there once one is used.
from . import (  # noqa: F401
    carafe,
    corner_pool,
    deform_roi_pool,
    focal_loss,
    masked_conv,
    ms_deform_attn,
    nms,
    overlaps,
    paste_masks,
    soft_nms,
)
