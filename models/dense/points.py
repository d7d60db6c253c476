"""What heads share that look from points.

Shape letters: L levels, H x W locations of a level, P points of a level, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..priors import grid_points


def level_points(
    sizes: Sequence[tuple[int, int]], strides: Sequence[float], device: torch.device, offset: float = 0.5
) -> list[Tensor]:
    """(P, 2) x and y of every location of each level of (H, W); ``offset`` in cells, 0.5 for the cells' centres."""
    return [grid_points(size, stride, device, offset) for size, stride in zip(sizes, strides, strict=True)]


def per_point(values: Sequence[float], points: Sequence[Tensor]) -> Tensor:
    """One value for each level to one for each point of all levels, (L P,) float."""
    return torch.cat([p.new_full((p.shape[0],), value) for value, p in zip(values, points, strict=True)])


def centerness_of(distances: Tensor) -> Tensor:
    """(N, 4) distances (left, top, right, bottom) to (N,) centerness in 0..1 (FCOS, eq. 3)."""
    across, down = distances[:, 0::2], distances[:, 1::2]
    return (across.amin(dim=1) / across.amax(dim=1) * (down.amin(dim=1) / down.amax(dim=1))).sqrt()


def kernel_taps(size: int, device: torch.device) -> Tensor:
    """(size * size, 2) y and x of a convolution's taps from its centre, row by row."""
    steps = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
    return torch.cartesian_prod(steps, steps)


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """``x``, whose gradient is multiplied by ``factor``."""
    return x.detach() * (1 - factor) + x * factor
