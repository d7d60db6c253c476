"""VGG-16 as SSD reads it: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", with its fully connected layers turned into convolutions (Liu et al., "SSD", section 3).

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
OUTPUTS = (22, 34)
"""The layers behind conv4_3 and fc7."""


class SSDVGG(nn.Module):
    """(B, 3, H, W) to the maps of conv4_3 (512 channels, stride 8) and fc7 (1024 channels, stride 16)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage, widths in enumerate(STAGES):
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            if stage < len(STAGES) - 1:
                layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
        layers += [
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(channels, 1024, 3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(inplace=True),
        ]
        self.features = nn.Sequential(*layers)
        self.out_channels = (512, 1024)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in OUTPUTS:
                outputs.append(x)
        return tuple(outputs)
