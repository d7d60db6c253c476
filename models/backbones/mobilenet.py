"""MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks"), as torchvision builds it.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from .resnet import freeze, freeze_batch_norm

OUTPUTS = (3, 6, 13, 17)
"""The last layer of every resolution from stride 4 on."""


class MobileNetV2(nn.Module):
    """(B, 3, H, W) to four maps of strides 4 to 32; ``out_channels`` lists their channels.

    width: of all layers, as a share of the paper's. frozen_layers: so many of the first are not trained. norm_eval:
    batch normalization uses its running statistics while training.
    """

    def __init__(self, width: float = 1.0, *, frozen_layers: int = 0, norm_eval: bool = True) -> None:
        super().__init__()
        self.frozen_layers, self.norm_eval = frozen_layers, norm_eval
        # What follows the last residual block makes features of whole images.
        self.features = mobilenet_v2(width_mult=width).features[: OUTPUTS[-1] + 1]
        convolutions = [[m for m in block.modules() if isinstance(m, nn.Conv2d)] for block in self.features]
        self.out_channels = tuple(convolutions[layer][-1].out_channels for layer in OUTPUTS)
        self.train()

    def train(self, mode: bool = True) -> MobileNetV2:
        super().train(mode)
        freeze(self.features[: self.frozen_layers])
        if mode and self.norm_eval:
            freeze_batch_norm(self)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for layer, block in enumerate(self.features):
            x = block(x)
            if layer in OUTPUTS:
                maps.append(x)
        return tuple(maps)
