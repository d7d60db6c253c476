"""Where queries look: places of a memory, boxes that start there, and boxes relative to others (Deformable DETR).

Shape letters: B images, L levels, H x W places of a level, S places of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..priors import grid_points
from .attention import Levels, Memory


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of values, which are kept in 0..1, ``eps`` away from both ends."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def shifted(codes: Tensor, reference: Tensor) -> Tensor:
    """(..., 4) codes relative to (..., 2) points or (..., 4) boxes, both in 0..1, to boxes in 0..1 (appendix A.3)."""
    anchor = inverse_sigmoid(reference)
    if anchor.shape[-1] == 2:
        return torch.cat((codes[..., :2] + anchor, codes[..., 2:]), dim=-1).sigmoid()
    return (codes + anchor).sigmoid()


def lay_out(masks: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> tuple[Levels, Tensor]:
    """From the (B, H, W) padding of each level how they lie in a memory, and where each place lies in the image.

    Returns the levels and (B, S, 2) x and y of ``dtype``, 0..1 of the image inside the padding.
    """
    device = masks[0].device
    sizes = tuple((mask.shape[1], mask.shape[2]) for mask in masks)
    starts = [sum(h * w for h, w in sizes[:level]) for level in range(len(sizes))]
    valid, places = [], []
    for mask, (height, width) in zip(masks, sizes):
        inside = torch.stack(((~mask[:, 0]).sum(dim=1), (~mask[:, :, 0]).sum(dim=1)), dim=1).to(dtype)
        valid.append(inside / inside.new_tensor((width, height)))
        places.append(grid_points((height, width), 1, device, offset=0.5) / inside[:, None])
    shapes, first = torch.tensor(sizes, device=device), torch.tensor(starts, device=device)
    return Levels(sizes, shapes, first, torch.stack(valid, dim=1)), torch.cat(places, dim=1)


def flattened(features: Sequence[Tensor]) -> tuple[Memory, Tensor]:
    """(B, C, H, W) maps to a memory without padding, and (B, S, 2) where its places lie."""
    masks = [x.new_zeros((x.shape[0], *x.shape[2:]), dtype=torch.bool) for x in features]
    levels, places = lay_out(masks, torch.promote_types(features[0].dtype, torch.float32))
    return Memory(torch.cat([x.flatten(2) for x in features], dim=2).transpose(1, 2), levels=levels), places


def proposal_boxes(levels: Levels, places: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A box at every place, whose size grows with the level ("Two-Stage Deformable DETR", appendix A.4).

    places: (B, S, 2). padding: (B, S) bool. Returns the (B, S, 4) logits of the boxes, as centre and size, and
    (B, S, 1) bool, whether the place is usable; where it is padding or too close to an edge the logits are infinite.
    """
    sizes = torch.cat(
        [places.new_full((height * width,), 0.05 * 2**level) for level, (height, width) in enumerate(levels.sizes)]
    )
    boxes = torch.cat((places, sizes[None, :, None].expand(places.shape[0], -1, 2)), dim=-1)
    usable = ((boxes > 0.01) & (boxes < 0.99)).all(dim=-1, keepdim=True)
    if padding is not None:
        usable = usable & ~padding[..., None]
    return torch.where(usable, (boxes / (1 - boxes)).log(), torch.inf), usable
