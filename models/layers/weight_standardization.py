"""Convolution with standardized weights.

Shape letters: O output channels, I input channels of a group, k kernel size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


class WSConv2d(nn.Conv2d):
    """A convolution whose (O, I, k, k) weights have mean 0 and standard deviation 1 in every output channel
    (Qiao et al., "Weight Standardization", eq. 5)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1)
        mean, std = flat.mean(dim=1, keepdim=True), flat.std(dim=1, keepdim=True)
        weight = ((flat - mean) / (std + EPS)).reshape(self.weight.shape)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
