"""Global context block: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond".

Shape letters: B images, C channels, H x W pixels, R reduced channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ContextBlock(nn.Module):
    """Adds to every pixel one vector, made from an attention-weighted mean over all pixels (figure 4d): (B, C, H, W).

    ratio: R / C of the bottleneck. The block starts as the identity.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        reduced = int(channels * ratio)
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, reduced, 1),
            nn.LayerNorm([reduced, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(reduced, channels, 1),
        )
        nn.init.kaiming_normal_(self.conv_mask.weight, mode="fan_in", nonlinearity="relu")
        last = self.channel_add_conv[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        attention = self.conv_mask(x).flatten(2).softmax(dim=2)
        context = torch.matmul(x.flatten(2), attention.transpose(1, 2))[..., None]
        return x + self.channel_add_conv(context)
