"""Attention of queries to a memory: to all of it, or to a few sampled places.

Shape letters: B images, Q queries, S places of a memory, C channels, M heads, L levels, P sampled points of a level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...ops.ms_deform_attn import ms_deform_attn
from ...ops.reference import sampled_levels


@dataclass(frozen=True)
class Levels:
    """How maps of several resolutions lie one after another in a memory.

    sizes: height and width of each map. shapes: the same as (L, 2) int64 on the device. starts: (L,) int64, the first
    place of each. valid: (B, L, 2) share of each map's width and height that lies inside the image.
    """

    sizes: tuple[tuple[int, int], ...]
    shapes: Tensor
    starts: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Memory:
    """What queries attend to.

    values: (B, S, C). positions: (B, S, C) that are added to the values where these serve as keys, or none.
    padding: (B, S) bool, true at places outside the image, or none. levels: where places come from, or none. hidden:
    (Q, S) bool, true at places that a query may not see, or none.
    """

    values: Tensor
    positions: Tensor | None = None
    padding: Tensor | None = None
    levels: Levels | None = None
    hidden: Tensor | None = None


def single_or_double(x: Tensor) -> Tensor:
    """Half precision as float32, in which coordinates are computed; anything else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cell_centres(locations: Tensor, sizes: Tensor) -> Tensor:
    """(..., 2) x and y in 0..1 to the centre of the nearest place of a map of ``sizes`` (width, height)."""
    cells = (locations.detach() * sizes + 0.5).long()
    return (torch.minimum(cells.clamp(min=0), sizes - 1) + 0.5).to(locations.dtype) / sizes


def weighted_samples(value: Tensor, levels: Levels, locations: Tensor, weights: Tensor) -> Tensor:
    """``ms_deform_attn`` of a memory's (B, S, M, D) values, also in a program that is being exported."""
    if torch.compiler.is_exporting():
        # In a program the levels' sizes are no values of tensors, but symbols.
        starts = [sum(h * w for h, w in levels.sizes[:level]) for level in range(len(levels.sizes))]
        return sampled_levels(value, levels.sizes, starts, locations, weights)
    return ms_deform_attn(value, levels.shapes, levels.starts, locations, weights)


def with_positions(values: Tensor, positions: Tensor | None) -> Tensor:
    """Values with their positions added, where there are any."""
    return values if positions is None else values + positions


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., "Attention Is All You Need", section 3.2.2) to every place of a memory
    that is neither padding nor hidden. Runs through ``scaled_dot_product_attention``."""

    def __init__(self, channels: int = 256, heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, query_pos: Tensor | None, memory: Memory, reference: Tensor | None = None
    ) -> Tensor:
        """(B, Q, C) queries and their positions to (B, Q, C); ``reference`` plays no part."""
        out, _ = self.attn(
            with_positions(query, query_pos),
            with_positions(memory.values, memory.positions),
            memory.values,
            key_padding_mask=memory.padding,
            attn_mask=memory.hidden,
            need_weights=False,
        )
        return self.dropout(out)


class DeformableAttention(nn.Module):
    """Attention to a few places around each query's reference (Zhu et al., "Deformable DETR", section 4.1).

    discrete: the nearest place of a map is read instead of the interpolation between four, as runtimes without
    bilinear sampling can (RT-DETRv2, section 3.1); the offsets then stay as they are loaded.
    """

    def __init__(
        self,
        channels: int = 256,
        heads: int = 8,
        levels: int = 4,
        points: int = 4,
        dropout: float = 0.1,
        discrete: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.levels, self.points, self.discrete = heads, levels, points, discrete
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.sampling_offsets.requires_grad_(not discrete)
        self.init_weights()

    def init_weights(self) -> None:
        """Each head starts by looking in a direction of its own, each point one step further (appendix A.4)."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=1)
        directions = directions / directions.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = directions[:, None, None] * steps[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, query: Tensor, query_pos: Tensor | None, memory: Memory, reference: Tensor | None = None
    ) -> Tensor:
        """(B, Q, C) queries, their positions and references to (B, Q, C).

        reference: (B, Q, 2) points, or (B, Q, 4) boxes as centre and size, 0..1 of the image inside the padding.
        """
        if memory.levels is None or reference is None:
            raise ValueError("deformable attention: the memory needs levels and the queries a reference")
        levels = memory.levels
        value = self.value_proj(memory.values)
        if memory.padding is not None:
            value = value.masked_fill(memory.padding[..., None], 0)
        batch, places = value.shape[:2]
        value = value.reshape(batch, places, self.heads, -1)
        query = with_positions(query, query_pos)
        shape = (batch, query.shape[1], self.heads, self.levels, self.points)
        offsets = single_or_double(self.sampling_offsets(query).reshape(*shape, 2))
        weights = self.attention_weights(query).reshape(*shape[:3], -1).softmax(dim=-1).reshape(shape)
        # The image covers only its share of a padded map.
        own = reference[:, :, None] * levels.valid.repeat(1, 1, reference.shape[-1] // 2)[:, None]
        own = own[:, :, None, :, None]
        if reference.shape[-1] == 2:
            locations = own + offsets / levels.shapes.flip(1)[:, None]
        else:
            locations = own[..., :2] + offsets / self.points * own[..., 2:] * 0.5
        if self.discrete:
            locations = cell_centres(locations, levels.shapes.flip(1)[:, None])
        return self.dropout(self.output_proj(weighted_samples(value, levels, locations, weights)))
