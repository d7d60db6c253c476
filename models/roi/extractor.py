"""Features of regions.

Shape letters: R regions, C channels, S output size, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import roi_align


class RoIAlign(nn.Module):
    """Bilinear sampling of regions (He et al., "Mask R-CNN", section 3): (B, C, H, W) and (R, 5) to (R, C, S, S).

    sampling_ratio: samples of each bin and direction; as many as pixels where 0. aligned: shift by half a pixel,
    so that sampling points and pixel centres agree.
    """

    def __init__(self, output_size: int, stride: int, *, sampling_ratio: int = 0, aligned: bool = True) -> None:
        super().__init__()
        self.output_size, self.stride = output_size, stride
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        # Half precision cannot tell neighbouring pixels of a large image apart: regions stay in their own.
        x = features.to(rois.dtype)
        pooled = roi_align(x, rois, self.output_size, 1 / self.stride, self.sampling_ratio, self.aligned)
        return pooled.to(features.dtype)


def pyramid_levels(rois: Tensor, levels: int, finest_scale: float = 56) -> Tensor:
    """(R,) level of each of (R, 5) regions by its size (FPN, eq. 1): below twice ``finest_scale`` the finest."""
    # A box turned inside out, which a head may predict, counts as one without area.
    scale = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp(min=0).sqrt()
    return (scale / finest_scale + 1e-6).log2().floor().clamp(0, levels - 1).long()


class RoIExtractor(nn.Module):
    """Features of every region from the one pyramid level that fits its size: (R, 5) to (R, C, S, S).

    Reads as many of the first levels as there are ``strides``. ``layers`` pools one level each.
    """

    def __init__(self, layers: Sequence[nn.Module], *, finest_scale: float = 56) -> None:
        super().__init__()
        self.roi_layers = nn.ModuleList(layers)
        self.finest_scale = finest_scale

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        if len(self.roi_layers) == 1:
            return self.roi_layers[0](features[0], rois)
        return self.pool(features, rois, self.levels(rois))

    def levels(self, rois: Tensor) -> Tensor:
        """(R,) level from which each of (R, 5) regions is read."""
        return pyramid_levels(rois, len(self.roi_layers), self.finest_scale)

    def pool(self, features: Sequence[Tensor], rois: Tensor, level: Tensor) -> Tensor:
        """(R, 5) regions, each from its (R,) level, to (R, C, S, S)."""
        pooled = None
        for number, layer in enumerate(self.roi_layers):
            index = (level == number).nonzero()[:, 0]
            # Every level is run, even for no region, so that all parameters take part on every process.
            own = layer(features[number], rois[index])
            if pooled is None:
                pooled = own.new_zeros((rois.shape[0], *own.shape[1:]))
            pooled = pooled.index_put_((index,), own)
        return pooled  # type: ignore[return-value]


def roi_align_extractor(
    output_size: int,
    strides: Sequence[int] = (4, 8, 16, 32),
    *,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> RoIExtractor:
    """RoIAlign on the fitting level of a pyramid."""
    return RoIExtractor([RoIAlign(output_size, s, sampling_ratio=sampling_ratio, aligned=aligned) for s in strides])
