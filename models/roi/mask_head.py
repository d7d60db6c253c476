"""Instance masks of regions.

Shape letters: R regions, Q positive ones, C channels, S region size, M mask size (2 S), K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from ..layers import ConvModule, Norm
from ..layers.carafe import CARAFE
from ..layers.init import init_kaiming
from ..structures import Targets
from .masks import own_class
from .rois import SampledRegions


class MaskHead(nn.Module):
    """The contract of a mask head: (R, C, S, S) region features to (R, K, M, M) logits; and how it is trained."""

    def __init__(self, num_classes: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.num_classes, self.loss_weight = num_classes, loss_weight

    def loss(self, logits: Tensor, regions: Sequence[SampledRegions], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Binary cross-entropy of the (Q, K, M, M) logits of the positives at their own class, averaged over pixels."""
        if not len(logits):
            return {"loss_mask": logits.sum() * 0}
        labels = torch.cat([r.labels for r in regions])
        wanted = mask_targets(regions, targets, int(logits.shape[-1]))
        loss = F.binary_cross_entropy_with_logits(own_class(logits, labels), wanted)
        return {"loss_mask": self.loss_weight * loss}


class FCNMaskHead(MaskHead):
    """Convolutions and one upsampling (He et al., "Mask R-CNN", figure 4 right): (R, C, S, S) to (R, K, M, M) logits.

    upsample: builds what doubles the resolution, from in and out channels; a transposed convolution by default.
    class_agnostic: one mask for each region, whatever its class.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 256,
        channels: int = 256,
        convs: int = 4,
        upsample: Callable[[int, int], nn.Module] | None = None,
        loss_weight: float = 1.0,
        norm: Norm | None = None,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        self.convs = nn.ModuleList(
            ConvModule(
                in_channels if index == 0 else channels,
                channels,
                3,
                padding=1,
                norm=norm,
                conv=conv,
                activation=nn.ReLU(inplace=True),
            )
            for index in range(convs)
        )
        self.upsample = (upsample or deconvolution)(channels, channels)
        self.conv_logits = nn.Conv2d(channels, 1 if class_agnostic else num_classes, 1)
        init_kaiming(self.conv_logits)

    def shared(self, x: Tensor) -> Tensor:
        """(R, C, S, S) region features to those from which the masks are made."""
        for conv in self.convs:
            x = conv(x)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """(R, C, S, S) features of ``shared`` to (R, K, M, M) logits."""
        return self.conv_logits(self.upsample(x).relu()).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.shared(x))


def deconvolution(in_channels: int, out_channels: int) -> nn.Module:
    """A transposed convolution that doubles the resolution."""
    layer = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
    init_kaiming(layer)
    return layer


def carafe_upsample(in_channels: int, out_channels: int) -> nn.Module:
    """Content-aware upsampling by two, which keeps the channels."""
    return CARAFE(in_channels)


def mask_targets(regions: Sequence[SampledRegions], targets: Sequence[Targets], size: int) -> Tensor:
    """(Q, M, M) of 0 and 1: each positive's ground truth mask, cut to its box."""
    wanted = []
    for region, target in zip(regions, targets, strict=True):
        if target.masks is None:
            raise ValueError("Targets.masks: this detector learns masks, but the targets have none")
        # Every object's mask is made floating point once, however many regions it has.
        objects, which = region.matched.unique(return_inverse=True)
        masks = target.masks[objects, None].to(region.boxes.dtype)
        rois = torch.cat((which[:, None].to(masks.dtype), region.positive_boxes), dim=1)
        cut = roi_align(masks, rois, size, 1.0, 0, aligned=True) if len(rois) else masks.new_zeros(0, 1, size, size)
        wanted.append((cut[:, 0] >= 0.5).to(cut.dtype))
    return torch.cat(wanted)
