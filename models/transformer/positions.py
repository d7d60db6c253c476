"""Where things are, as vectors of sines and cosines, and where images are not.

Shape letters: B images, H x W padded pixels or places of a map, F channels of one coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 10000


def padding_mask(sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int], device: torch.device) -> Tensor:
    """(B, H, W) bool: the pixel lies outside its image of (h, w)."""
    limits = torch.as_tensor(sizes, device=device)
    rows = torch.arange(padded_size[0], device=device) >= limits[:, :1]
    columns = torch.arange(padded_size[1], device=device) >= limits[:, 1:]
    return rows[:, :, None] | columns[:, None, :]


def resized_mask(mask: Tensor, features: Tensor) -> Tensor:
    """(B, H, W) bool of the pixels to the nearest values on a (B, C, h, w) map."""
    return F.interpolate(mask[:, None].float(), size=features.shape[2:])[:, 0].bool()


def sine_embedding(positions: Tensor, channels: int) -> Tensor:
    """(...) positions in radians to (..., F), sines and cosines of ever longer waves by turns (Vaswani et al.,
    "Attention Is All You Need", section 3.5)."""
    index = torch.arange(channels, device=positions.device, dtype=torch.float32)
    waves = positions[..., None] / TEMPERATURE ** (2 * (index // 2) / channels)
    return torch.stack((waves[..., 0::2].sin(), waves[..., 1::2].cos()), dim=-1).flatten(-2)


def grid_sines(size: tuple[int, int], channels: int, like: Tensor) -> Tensor:
    """(H W, C) for the places of a map: sines and cosines of the row, then of the column, each counted from 0.

    In the device and dtype of ``like``; computed in float64.
    """
    quarter = channels // 4
    index = torch.arange(quarter, device=like.device, dtype=torch.float64)
    waves = TEMPERATURE ** -(index / quarter)
    rows, columns = (torch.arange(length, device=like.device, dtype=torch.float64)[:, None] * waves for length in size)
    rows, columns = rows[:, None].expand(-1, size[1], -1), columns[None].expand(size[0], -1, -1)
    return torch.cat((rows.sin(), rows.cos(), columns.sin(), columns.cos()), dim=-1).flatten(0, 1).to(like.dtype)


def sine_positions(padding: Tensor, channels: int = 128, offset: float = 0.0) -> Tensor:
    """(B, H, W) bool padding to (B, 2 F, H, W): rows, then columns, as shares of the image in turns of a circle.

    offset: added to the count of rows and columns up to each place, which starts at one; -0.5 means cell centres.
    """
    inside = (~padding).float()
    coordinates = []
    for axis in (1, 2):
        count = inside.cumsum(dim=axis)
        last = count.narrow(axis, -1 + count.shape[axis], 1)
        coordinates.append((count + offset) / (last + 1e-6) * (2 * math.pi))
    return torch.cat([sine_embedding(c, channels) for c in coordinates], dim=-1).permute(0, 3, 1, 2)
