"""GRoIE: Rossi et al., "A novel Region of Interest Extraction Layer for Instance Segmentation". Any second stage whose
regions are read from all levels of the pyramid instead of one.

Shape letters: R regions of all images, C channels, S region size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import ConvModule
from ..layers.generalized_attention import GeneralizedAttention
from ..roi.extractor import RoIAlign


class GenericRoIExtractor(nn.Module):
    """Features of every region from all levels: (R, 5) to (R, C, S, S).

    Each level's features pass a shared convolution and are summed; attention follows (section 3, figure 2).
    """

    def __init__(self, size: int, strides: Sequence[int] = (4, 8, 16, 32), *, channels: int = 256) -> None:
        super().__init__()
        self.roi_layers = nn.ModuleList(RoIAlign(size, stride, sampling_ratio=2) for stride in strides)
        self.pre_module = ConvModule(channels, channels, 5, padding=2, activation=nn.ReLU())
        self.post_module = GeneralizedAttention(channels, terms="0100", heads=6, key_stride=2)

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        levels = [self.pre_module(layer(x, rois)) for layer, x in zip(self.roi_layers, features)]
        return self.post_module(torch.stack(levels).sum(dim=0))
