"""TridentNet: Li et al., "Scale-Aware Trident Networks for Object Detection".

Faster R-CNN without a pyramid on a backbone with three parallel branches, which share their weights and differ in
their dilation, thus in the size of objects that they see best. All branches are trained on all objects; at test time
the one in the middle stands for them.

Shape letters: B images, T branches, R regions of all images, C channels, S region size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ..backbones.resnet import BlockOptions, Bottleneck, freeze_batch_norm, init_backbone, residual_stage
from ..backbones.trident_resnet import DILATIONS, TridentResNet
from ..detectors.two_stage import TwoStageDetector
from ..layers import FROZEN_BN, Norm
from ..priors import anchor_grid
from ..roi.box_head import BoxHead
from ..roi.extractor import roi_align_extractor
from ..roi.standard import StandardRoIHead
from ..samplers import RandomSampler
from ..settings import ProposalSettings
from ..structures import ImageBatch, Targets
from .rpn import RPNHead

STRIDE = 16


class LastStage(nn.Module):
    """The last stage of a ResNet with bottlenecks, which every region passes through: (R, C, S, S) to
    (R, 2 C, S / stride, S / stride). norm_eval: batch normalization uses its running statistics while training."""

    def __init__(
        self,
        *,
        stride: int = 2,
        dilation: int = 1,
        style: str = "caffe",
        norm: Norm = FROZEN_BN,
        norm_eval: bool = True,
    ) -> None:
        super().__init__()
        self.norm_eval = norm_eval
        self.layer4 = residual_stage(
            Bottleneck,
            1024,
            512,
            expansion=4,
            blocks=3,
            stride=stride,
            dilation=dilation,
            options=BlockOptions(norm=norm, style=style),
        )
        init_backbone(self)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.norm_eval:
            freeze_batch_norm(self)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(x)


class TridentFasterRCNN(TwoStageDetector):
    """Faster R-CNN which is trained on every image once for each branch."""

    def forward(
        self, images: ImageBatch, targets: Sequence[Targets], proposals: Sequence[Tensor] | None = None
    ) -> dict[str, Tensor]:
        branches = len(DILATIONS)
        repeated = replace(
            images,
            pixels=images.pixels.repeat(branches, 1, 1, 1),
            sizes=list(images.sizes) * branches,
            original_sizes=None,
            scales=None,
            offsets=None,
        )
        return self.losses(self.features(images), repeated, list(targets) * branches, proposals)


def tridentnet(num_classes: int, *, backbone: Callable[[], TridentResNet]) -> TwoStageDetector:
    """TridentNet on a backbone with three stages, the last of them in branches."""
    body = backbone()
    channels = body.out_channels[0]
    return TridentFasterRCNN(
        backbone=body,
        neck=None,
        rpn_head=RPNHead(
            in_channels=channels,
            channels=channels,
            anchors=anchor_grid((STRIDE,), scales=(2, 4, 8, 16, 32), ratios=(0.5, 1.0, 2.0)),
            training=ProposalSettings(candidates_per_level=12000, max_per_image=500),
            testing=ProposalSettings(candidates_per_level=6000),
        ),
        roi_head=StandardRoIHead(
            bbox_roi_extractor=roi_align_extractor(14, (STRIDE,)),
            bbox_head=BoxHead(num_classes=num_classes, in_channels=2 * channels, fcs=0),
            shared_head=LastStage(),
            sampler=RandomSampler(num=128, pos_fraction=0.5),
        ),
    )
