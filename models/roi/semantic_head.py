"""A semantic segmentation branch beside the regions.

Shape letters: B images, C channels, H x W pixels of the batch, h x w locations of the fusion level, R regions, S region
size, G semantic classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dense.towers import tower
from ..layers import ConvModule
from ..layers.init import init_kaiming
from ..structures import Targets
from .extractor import RoIExtractor, roi_align_extractor

COCO_STUFF_CLASSES = 183
"""Things, stuff and one for what is neither, as in the COCO-stuff maps."""
IGNORED_CLASS = 255
STRIDE = 8


class FusedSemanticHead(nn.Module):
    """All levels of a pyramid at one resolution (Chen et al., "Hybrid Task Cascade for Instance Segmentation", section
    3.3): (B, C, ...) levels to (B, G, h, w) logits and (B, C, h, w) features at stride 8.

    convs: the layers between fusion and outputs; ``depth`` convolutions by default.
    """

    def __init__(
        self,
        *,
        num_classes: int = COCO_STUFF_CLASSES,
        in_channels: int = 256,
        channels: int = 256,
        depth: int = 4,
        levels: int = 5,
        fusion_level: int = 1,
        convs: Sequence[nn.Module] | None = None,
        loss_weight: float = 0.2,
    ) -> None:
        super().__init__()
        self.num_classes, self.fusion_level, self.loss_weight = num_classes, fusion_level, loss_weight
        self.lateral_convs = nn.ModuleList(
            ConvModule(in_channels, in_channels, 1, activation=nn.ReLU()) for _ in range(levels)
        )
        if convs is None:
            convs = list(tower(in_channels, channels, depth))
        self.convs = nn.ModuleList(convs)
        self.conv_embedding = ConvModule(channels, channels, 1, activation=nn.ReLU(inplace=True))
        self.conv_logits = nn.Conv2d(channels, num_classes, 1)
        init_kaiming(self.conv_logits)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        size = features[self.fusion_level].shape[2:]
        # The fusion level comes first, so that sums are rounded as in the published models.
        order = [self.fusion_level, *(i for i in range(len(self.lateral_convs)) if i != self.fusion_level)]
        x = features[0].new_zeros(())
        for level in order:
            resized = features[level]
            if level != self.fusion_level:
                resized = F.interpolate(resized, size=size, mode="bilinear", align_corners=True)
            x = x + self.lateral_convs[level](resized)
        for conv in self.convs:
            x = conv(x)
        return self.conv_logits(x).float(), self.conv_embedding(x)

    def loss(self, logits: Tensor, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Cross-entropy at every 8th pixel of the class maps, averaged over all of them; class 255 adds nothing."""
        wanted = torch.stack([_semantic(target) for target in targets])[:, ::STRIDE, ::STRIDE].long()
        loss = F.cross_entropy(logits, wanted, ignore_index=IGNORED_CLASS, reduction="none").mean()
        return {"loss_semantic_seg": self.loss_weight * loss}


def _semantic(target: Targets) -> Tensor:
    if target.semantic is None:
        raise ValueError("Targets.semantic: this detector learns a class map, but the targets have none")
    return target.semantic


def semantic_roi_extractor() -> RoIExtractor:
    """Regions of 14 x 14 from the features of a ``FusedSemanticHead``."""
    return roi_align_extractor(14, strides=(STRIDE,))


def add_semantic(x: Tensor, extractor: nn.Module, semantic: Tensor, rois: Tensor) -> Tensor:
    """(R, C, S, S) region features plus the semantic features of the same (R, 5) regions, averaged to their size."""
    pooled = extractor([semantic], rois)
    if pooled.shape[2:] != x.shape[2:]:
        pooled = F.adaptive_avg_pool2d(pooled, (x.shape[2], x.shape[3]))
    return x + pooled
