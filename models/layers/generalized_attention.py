"""Generalized attention: Zhu et al., "An Empirical Study of Spatial Attention Mechanisms in Deep Networks".

Shape letters: B images, C channels, M heads, D channels of a head, H x W query pixels, h x w key pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WAVE_LENGTH = 1000


class GeneralizedAttention(nn.Module):
    """Attention whose weights are a sum of up to four terms (eq. 3), added to the input with a learnt factor.

    terms: four flags, as in the paper's tables: query and key content, query content and relative position, key
    content only, relative position only. heads: M. key_stride: keys are taken at every so many pixels.
    """

    def __init__(self, channels: int, *, terms: str, heads: int = 8, key_stride: int = 2) -> None:
        super().__init__()
        if len(terms) != 4 or set(terms) - {"0", "1"} or terms == "0000":
            raise ValueError(f"GeneralizedAttention.terms: expected four flags such as '0010', found {terms!r}")
        self.content, self.content_position, self.key_only, self.position_only = (flag == "1" for flag in terms)
        self.heads, self.key_stride = heads, key_stride
        self.head_channels = channels // heads
        self.position_channels = channels
        width = self.head_channels * heads
        if self.content or self.content_position:
            self.query_conv = nn.Conv2d(channels, width, 1, bias=False)
        if self.content or self.key_only:
            self.key_conv = nn.Conv2d(channels, width, 1, bias=False)
        self.value_conv = nn.Conv2d(channels, width, 1, bias=False)
        if self.content_position or self.position_only:
            self.appr_geom_fc_x = nn.Linear(channels // 2, width, bias=False)
            self.appr_geom_fc_y = nn.Linear(channels // 2, width, bias=False)
        bound = 1 / math.sqrt(self.head_channels * 2)
        if self.key_only:
            self.appr_bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        if self.position_only:
            self.geom_bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        self.proj_conv = nn.Conv2d(width, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(self.proj_conv.bias)  # type: ignore[arg-type]

    def split(self, x: Tensor) -> Tensor:
        """(B, M D, H, W) to (B, M, H W, D)."""
        return x.flatten(2).unflatten(1, (self.heads, self.head_channels)).transpose(2, 3)

    def positions(self, queries: int, keys: int, layer: nn.Linear) -> Tensor:
        """(M, queries, keys, D) features of the distances between pixels along one axis (section 3.1)."""
        device, dtype = layer.weight.device, layer.weight.dtype
        distance = (
            torch.arange(queries, device=device, dtype=dtype)[:, None]
            - torch.arange(keys, device=device, dtype=dtype)[None] * self.key_stride
        )
        frequency = torch.arange(self.position_channels // 4, device=device, dtype=dtype)
        wave = WAVE_LENGTH ** (frequency * 4 / self.position_channels)
        angle = distance[..., None] / wave
        features = layer(torch.cat((angle.sin(), angle.cos()), dim=-1)) / math.sqrt(2)
        return features.unflatten(-1, (self.heads, self.head_channels)).permute(2, 0, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        source = x[:, :, :: self.key_stride, :: self.key_stride]
        values = self.split(self.value_conv(source))
        if self.key_only and not (self.content or self.content_position or self.position_only):
            # The weights do not depend on the query: one mean serves all pixels.
            bias = self.appr_bias.view(1, self.heads, 1, self.head_channels)
            weights = (bias @ self.split(self.key_conv(source)).transpose(2, 3)).softmax(dim=3)
            out = (weights @ values).transpose(2, 3).flatten(1, 2)[..., None]
        else:
            weights = self.energy(x, source).softmax(dim=3)
            out = (weights @ values).transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:])
        return x + self.gamma * self.proj_conv(out)

    def energy(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, M, H W, h w) attention logits of queries in ``x`` and keys in ``source``."""
        batch, (height, width), (key_height, key_width) = len(x), x.shape[2:], source.shape[2:]
        content = x.new_zeros(1, self.heads, 1, self.head_channels)
        queries = self.split(self.query_conv(x)) if self.content or self.content_position else content
        energy = x.new_zeros(batch, self.heads, height * width, key_height * key_width)
        if self.content or self.key_only:
            asked = queries if self.content else content
            if self.key_only:
                asked = asked + self.appr_bias.view(1, self.heads, 1, self.head_channels)
            energy = energy + asked @ self.split(self.key_conv(source)).transpose(2, 3)
        if self.content_position or self.position_only:
            asked = queries if self.content_position else content
            if self.position_only:
                asked = asked + self.geom_bias.view(1, self.heads, 1, self.head_channels)
            asked = asked.expand(batch, -1, height * width, -1).unflatten(2, (height, width))
            along_x = self.positions(width, key_width, self.appr_geom_fc_x)
            along_y = self.positions(height, key_height, self.appr_geom_fc_y)
            by_column = torch.einsum("bmyxd,mxkd->bmyxk", asked, along_x)
            if not self.position_only:
                # The published models of this kind (GRoIE) ask for rows with the query of the mirrored pixel.
                if height != width:
                    raise ValueError(f"GeneralizedAttention: terms 01x0 need square maps, found {(height, width)}")
                asked = asked.transpose(2, 3)
            by_row = torch.einsum("bmyxd,mykd->bmyxk", asked, along_y)
            energy = energy + (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)
        return energy
