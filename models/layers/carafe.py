"""CARAFE upsampling with its kernel prediction: Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures".

Shape letters: B images, C channels, H x W pixels, k reassembly kernel size, s scale.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.carafe import carafe
from .init import init_xavier


class CARAFE(nn.Module):
    """Upsample (B, C, H, W) to (B, C, s H, s W) with a predicted kernel at every output pixel (sections 3.2, 3.3)."""

    def __init__(
        self, channels: int, *, scale: int = 2, kernel: int = 5, compressed: int = 64, encoder_kernel: int = 3
    ) -> None:
        super().__init__()
        self.scale, self.kernel = scale, kernel
        self.channel_compressor = nn.Conv2d(channels, compressed, 1)
        self.content_encoder = nn.Conv2d(
            compressed, (kernel * scale) ** 2, encoder_kernel, padding=(encoder_kernel - 1) // 2
        )
        init_xavier(self.channel_compressor)
        nn.init.normal_(self.content_encoder.weight, std=0.001)
        nn.init.zeros_(self.content_encoder.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        kernels = self.content_encoder(self.channel_compressor(x))
        kernels = F.pixel_shuffle(kernels, self.scale).softmax(dim=1)
        return carafe(x, kernels, self.kernel, 1, self.scale)
