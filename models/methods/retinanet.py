"""RetinaNet: Lin et al., "Focal Loss for Dense Object Detection".

Nine anchors at every location of five pyramid levels, scored by two small convolutional towers that all levels
share; the focal loss keeps the many easy negatives from drowning the rest.

Shape letters: B images, L levels, H x W locations of a level, A anchors of a location, P anchors, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..assigners import MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..coders import BoxCoder, DeltaCoder
from ..dense.anchor_targets import AnchorTargets, Assign, anchor_losses, head_targets
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.postprocess import dense_detections
from ..dense.towers import tower
from ..detectors.single_stage import SingleStageDetector
from ..layers import Norm
from ..layers.init import bias_for_prior, init_normal
from ..losses import BoxLoss, FocalLoss, L1Loss
from ..necks.fpn import FPN
from ..priors import AnchorGrid, anchor_grid, octave_scales
from ..samplers import AllSampler
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets

STRIDES = (8, 16, 32, 64, 128)


def retina_anchors(strides: Sequence[int] = STRIDES) -> AnchorGrid:
    """Three scales in an octave times three ratios (section 4, "Anchors")."""
    return anchor_grid(strides, scales=octave_scales(4, 3), ratios=(0.5, 1.0, 2.0))


class RetinaHead(DenseHead):
    """Classification and regression towers; outputs are (logits, codes) of each level.

    logits: (B, A K, H, W), by sigmoid. codes: (B, A 4, H, W).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 256,
        channels: int = 256,
        depth: int = 4,
        anchors: AnchorGrid | None = None,
        coder: BoxCoder | None = None,
        assigner: Assign | None = None,
        class_loss: Callable[..., Tensor] | None = None,
        box_loss: BoxLoss | None = None,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.anchors = anchors or retina_anchors()
        self.coder = coder or DeltaCoder()
        self.assigner = assigner or MaxIoUAssigner(positive=0.5, negative=0.4)
        self.sampler = AllSampler()
        self.loss_cls, self.loss_bbox = class_loss or FocalLoss(), box_loss or L1Loss()
        per_location = self.anchors.anchors_per_location[0]
        self.cls_convs = tower(in_channels, channels, depth, norm)
        self.reg_convs = tower(in_channels, channels, depth, norm)
        self.retina_cls = nn.Conv2d(channels, per_location * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(channels, per_location * 4, 3, padding=1)
        init_normal(self)
        nn.init.constant_(self.retina_cls.bias, bias_for_prior(0.01))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, codes = [], []
        for x in features:
            logits.append(self.retina_cls(self.cls_convs(x)))
            codes.append(self.retina_reg(self.reg_convs(x)))
        return logits, codes

    def anchor_targets(
        self, sizes: Sequence[tuple[int, int]], images: ImageBatch, targets: Sequence[Targets]
    ) -> tuple[Tensor, AnchorTargets]:
        """(P, 4) anchors on levels of (H, W), and what they should predict."""
        return head_targets(self, sizes, images, targets)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes = outputs
        anchors, wanted = self.anchor_targets(feature_sizes(logits), images, targets)
        loss_cls, loss_bbox = anchor_losses(
            all_by_prior(logits, self.num_classes),
            all_by_prior(codes, 4),
            anchors,
            wanted,
            class_loss=self.loss_cls,
            box_loss=self.loss_bbox,
            coder=self.coder,
            normalizer=wanted.positives,
        )
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox}

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, codes = outputs
        return dense_detections(
            [by_prior(level, self.num_classes).sigmoid() for level in logits],
            [by_prior(level, 4) for level in codes],
            self.anchors(feature_sizes(logits), logits[0].device),
            self.coder.decode,
            images,
            test,
        )


def retinanet(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    extra: str = "input",
    head: Callable[..., RetinaHead] = RetinaHead,
) -> SingleStageDetector:
    """RetinaNet on a backbone with four stages.

    extra: what the pyramid's sixth level is made from. head: makes the head from its ``num_classes``.
    """
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, start=1, extra=extra),
        bbox_head=head(num_classes=num_classes),
        test=DenseTest(),
    )
