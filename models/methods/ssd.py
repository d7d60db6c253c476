"""SSD: Liu et al., "SSD: Single Shot MultiBox Detector".

Default boxes of several shapes on six or seven maps of a VGG network, scored by a softmax over classes and
background; the hardest negatives are trained on.

Shape letters: B images, H x W locations of a level, A anchors of a location, P anchors, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..assigners import MaxIoUAssigner
from ..coders import BoxCoder, DeltaCoder
from ..dense.anchor_targets import AnchorTargets, head_targets
from ..dense.head import DenseHead, all_by_prior, by_prior, feature_sizes
from ..dense.postprocess import dense_detections
from ..detectors.single_stage import SingleStageDetector
from ..layers.init import init_xavier
from ..losses import SmoothL1Loss
from ..necks.ssd_neck import ExtraLayer, SSDNeck
from ..priors import AnchorGrid, base_anchors
from ..samplers import AllSampler
from ..settings import DenseTest
from ..structures import Detections, ImageBatch, Targets


@dataclass(frozen=True)
class Layout:
    """The numbers of one input size: default boxes, and the layers that carry them.

    ratio_range: smallest and largest default box of the levels from the second on, in percent of the image;
    first_ratios: those of the first level. ratios: aspect ratios of each level beside 1 (section 2.2).
    """

    input_size: int
    strides: tuple[int, ...]
    ratio_range: tuple[int, int]
    first_ratios: tuple[int, int]
    ratios: tuple[tuple[int, ...], ...]
    layers: tuple[ExtraLayer, ...]

    def default_boxes(self) -> list[tuple[int, int]]:
        """The smaller and larger square default box of each level, in pixels."""
        low, high = self.ratio_range
        step = (high - low) // (len(self.strides) - 2)
        percents = [self.first_ratios, *((ratio, ratio + step) for ratio in range(low, high + 1, step))]
        return [tuple(self.input_size * percent // 100 for percent in pair) for pair in percents]  # type: ignore[misc]


SSD300 = Layout(
    input_size=300,
    strides=(8, 16, 32, 64, 100, 300),
    ratio_range=(15, 90),
    first_ratios=(7, 15),
    ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    layers=(ExtraLayer(512, 2, 1), ExtraLayer(256, 2, 1), ExtraLayer(256, 1, 0), ExtraLayer(256, 1, 0)),
)
SSD512 = Layout(
    input_size=512,
    strides=(8, 16, 32, 64, 128, 256, 512),
    ratio_range=(10, 90),
    first_ratios=(4, 10),
    ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    layers=(
        ExtraLayer(512, 2, 1),
        ExtraLayer(256, 2, 1),
        ExtraLayer(256, 2, 1),
        ExtraLayer(256, 2, 1),
        ExtraLayer(256, 1, 1, kernel_size=4),
    ),
)


def ssd_bases(layout: Layout) -> list[Tensor]:
    """(A, 4) default boxes of each level around the origin: two squares, then each ratio lying and standing."""
    bases = []
    for (small, large), ratios in zip(layout.default_boxes(), layout.ratios, strict=True):
        shapes = [1.0] + [shape for ratio in ratios for shape in (1 / ratio, float(ratio))]
        boxes = base_anchors(small, (1.0, (large / small) ** 0.5), shapes, ratio_major=False)
        order = [0, len(shapes), *range(1, len(shapes))]
        bases.append(boxes[order])
    return bases


def ssd_anchors(layout: Layout) -> AnchorGrid:
    """Default boxes centred on the middle of each cell."""
    bases = [base + stride / 2 for base, stride in zip(ssd_bases(layout), layout.strides, strict=True)]
    return AnchorGrid(layout.strides, bases)


def hard_negative_loss(losses: Tensor, targets: AnchorTargets, ratio: int, keep_all_if_empty: bool = False) -> Tensor:
    """(B, P) classification losses summed over the positives and the hardest negatives of each image.

    ratio: negatives for each positive (section 2.2, "Hard negative mining"). keep_all_if_empty: take every negative
    of an image without positives, rather than none.
    """
    total = losses.new_zeros(())
    for loss, positive, weight in zip(losses, targets.positive, targets.label_weights, strict=True):
        negative = loss[~positive & (weight > 0)]
        positives = int(positive.sum())
        count = len(negative) if keep_all_if_empty and not positives else min(ratio * positives, len(negative))
        total = total + loss[positive].sum() + negative.topk(count).values.sum()
    return total


class SSDHead(DenseHead):
    """One convolution each for classes and boxes on every level; outputs are (logits, codes) of each level.

    logits: (B, A (K + 1), H, W), by softmax, the last class background. codes: (B, A 4, H, W).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: Sequence[int],
        anchors: AnchorGrid,
        coder: BoxCoder | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.anchors = num_classes, anchors
        self.coder = coder or DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
        self.assigner = MaxIoUAssigner(positive=0.5, negative=0.5, match_all_best=False)
        self.sampler, self.loss_bbox, self.negative_ratio = AllSampler(), SmoothL1Loss(), 3
        per_location = anchors.anchors_per_location
        self.cls_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, a * (num_classes + 1), 3, padding=1))
            for c, a in zip(in_channels, per_location, strict=True)
        )
        self.reg_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, a * 4, 3, padding=1)) for c, a in zip(in_channels, per_location, strict=True)
        )
        init_xavier(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits = [conv(x) for conv, x in zip(self.cls_convs, features, strict=True)]
        return logits, [conv(x) for conv, x in zip(self.reg_convs, features, strict=True)]

    def targets(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> tuple[Tensor, AnchorTargets]:
        """(P, 4) anchors and what they should predict."""
        return head_targets(self, feature_sizes(outputs[0]), images, targets)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, codes = all_by_prior(outputs[0], self.num_classes + 1), all_by_prior(outputs[1], 4)
        _, wanted = self.targets(outputs, images, targets)
        each = F.cross_entropy(logits.flatten(0, 1), wanted.labels.flatten(), reduction="none")
        loss_cls = hard_negative_loss(each.view_as(wanted.labels), wanted, self.negative_ratio) / wanted.positives
        loss_bbox = self.loss_bbox(codes[wanted.positive], wanted.codes[wanted.positive], None, wanted.positives)
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox}

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: DenseTest) -> list[Detections]:
        logits, codes = outputs
        return dense_detections(
            [by_prior(level, self.num_classes + 1).softmax(dim=2)[..., :-1] for level in logits],
            [by_prior(level, 4) for level in codes],
            self.anchors(feature_sizes(logits), logits[0].device),
            self.coder.decode,
            images,
            test,
        )


def ssd(
    num_classes: int,
    *,
    backbone: Callable[[], nn.Module],
    layout: Layout = SSD300,
    anchors: Callable[[Layout], AnchorGrid] = ssd_anchors,
    coder: BoxCoder | None = None,
    head: Callable[..., SSDHead] = SSDHead,
) -> SingleStageDetector:
    """SSD on a backbone with two outputs; ``layout`` is that of the input size, ``anchors`` makes its boxes."""
    body = backbone()
    neck = SSDNeck(body.out_channels, layout.layers)  # type: ignore[arg-type]
    return SingleStageDetector(
        backbone=body,
        neck=neck,
        bbox_head=head(num_classes=num_classes, in_channels=neck.out_channels, anchors=anchors(layout), coder=coder),
        test=DenseTest(score_threshold=0.02, nms_threshold=0.45, max_per_image=200),
    )
