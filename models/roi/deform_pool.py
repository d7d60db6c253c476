"""Deformable RoI pooling with its offset branches.

Shape letters: R regions, C channels, S output size.
"""

from __future__ import annotations

from torch import Tensor, nn

from ...ops.deform_roi_pool import deform_roi_pool
from .extractor import RoIExtractor

HIDDEN = 1024
GAMMA = 0.1


class DeformRoIPool(nn.Module):
    """Deformable RoI pooling (Dai et al., "Deformable Convolutional Networks", section 2.2): (R, C, S, S) from bins
    that are moved by offsets, which are predicted from the plainly pooled region.

    modulated: bins are also weighed (Zhu et al., "Deformable ConvNets v2", eq. 2).
    """

    def __init__(self, output_size: int, stride: int, *, channels: int = 256, modulated: bool = False) -> None:
        super().__init__()
        self.output_size, self.stride = output_size, stride
        bins = output_size**2
        self.offset_fc = nn.Sequential(
            nn.Linear(bins * channels, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, bins * 2),
        )
        self.mask_fc = None
        if modulated:
            self.mask_fc = nn.Sequential(
                nn.Linear(bins * channels, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, bins), nn.Sigmoid()
            )
            nn.init.zeros_(self.mask_fc[2].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.mask_fc[2].bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.offset_fc[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.offset_fc[-1].bias)  # type: ignore[arg-type]

    def pool(self, features: Tensor, rois: Tensor, offsets: Tensor | None) -> Tensor:
        """(R, C, S, S) with bins moved by (R, 2, S, S) offsets, or not moved."""
        return deform_roi_pool(features, rois, offsets, self.output_size, 1 / self.stride, 0, GAMMA)

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        plain = self.pool(features, rois, None).flatten(1)
        offsets = self.offset_fc(plain).unflatten(1, (2, self.output_size, self.output_size))
        pooled = self.pool(features, rois, offsets)
        if self.mask_fc is None:
            return pooled
        return pooled * self.mask_fc(plain).unflatten(1, (1, self.output_size, self.output_size))


def deform_pool_extractor(*, modulated: bool = False) -> RoIExtractor:
    """Deformable RoI pooling on the fitting level of a pyramid."""
    return RoIExtractor([DeformRoIPool(7, stride, modulated=modulated) for stride in (4, 8, 16, 32)])
