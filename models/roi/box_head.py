"""Classification and box refinement of regions.

Shape letters: R regions of all images, Q positive ones, C channels, S region size, K classes, D code size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..coders import BoxCoder, DeltaCoder
from ..layers import ConvModule, Norm
from ..layers.init import init_xavier, zero_bias
from ..layers.linear import fc_layers
from ..losses import BoxLoss, CrossEntropy, L1Loss
from ..structures import ImageSize
from .rois import SampledRegions


class RegionHead(nn.Module):
    """The contract of what classifies regions and refines their boxes.

    ``forward`` takes (R, C, S, S) features to (R, K + 1) class logits, the last column for background, and (R, D) box
    codes.
    """

    num_classes: int

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def loss(self, logits: Tensor, codes: Tensor, regions: Sequence[SampledRegions]) -> dict[str, Tensor]:
        """Loss terms of the sampled regions of all images."""
        raise NotImplementedError

    def refine(self, boxes: Tensor, labels: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(R, 4) boxes moved by the codes of their (R,) labels, cut to an image of (h, w) where given."""
        raise NotImplementedError

    def decode(self, boxes: Tensor, codes: Tensor, size: ImageSize) -> Tensor:
        """(R, 4) boxes and all their codes to (R, 4), or (R, K, 4) where each class has its own box."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """(R, K + 1) logits to (R, K) scores without background."""
        return logits.softmax(dim=1)[:, :-1]

    def confidences(self, codes: Tensor) -> Tensor | None:
        """(R,) factors by which the scores are multiplied before suppression, since the codes tell how well a box is
        localized; none where they do not."""
        return None


@dataclass(frozen=True)
class Branches:
    """How many convolutions and fully connected layers classes and boxes have each for themselves."""

    class_convs: int = 0
    class_fcs: int = 0
    box_convs: int = 0
    box_fcs: int = 0


NO_BRANCHES = Branches()


class BoxHead(RegionHead):
    """Shared convolutions and fully connected layers, own ones in ``branches``, then class logits and box codes of each
    region.

    (R, C, S, S) to (R, K + 1), the last column for background, and (R, 4 K) or (R, 4) where ``class_agnostic``.
    Without any fully connected layers the last map is averaged over the region.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 256,
        roi_size: int = 7,
        convs: int = 0,
        fcs: int = 2,
        conv_channels: int = 256,
        fc_channels: int = 1024,
        class_agnostic: bool = False,
        coder: BoxCoder | None = None,
        class_loss: Callable[..., Tensor] | None = None,
        box_loss: BoxLoss | None = None,
        norm: Norm | None = None,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        branches: Branches = NO_BRANCHES,
    ) -> None:
        super().__init__()
        self.num_classes, self.class_agnostic = num_classes, class_agnostic
        self.coder = coder or DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
        self.class_loss, self.box_loss = class_loss or CrossEntropy(), box_loss or L1Loss()
        self.average = fcs == 0 and branches == NO_BRANCHES
        if fcs and (branches.class_convs or branches.box_convs):
            raise ValueError("BoxHead: convolutions of a branch cannot follow shared fully connected layers")

        def conv_layers(channels: int, count: int) -> nn.ModuleList:
            make = partial(ConvModule, kernel_size=3, padding=1, norm=norm, conv=conv)
            return nn.ModuleList(
                make(channels if index == 0 else conv_channels, conv_channels, activation=nn.ReLU(inplace=True))
                for index in range(count)
            )

        area = 1 if self.average else roi_size**2
        channels = conv_channels if convs else in_channels
        self.shared_convs = conv_layers(in_channels, convs)
        self.shared_fcs = fc_layers(channels * area, fc_channels, fcs)
        widths = []
        for name, own_convs, own_fcs in (
            ("cls", branches.class_convs, branches.class_fcs),
            ("reg", branches.box_convs, branches.box_fcs),
        ):
            self.add_module(f"{name}_convs", conv_layers(channels, own_convs))
            width = fc_channels if fcs else (conv_channels if own_convs else channels) * area
            self.add_module(f"{name}_fcs", fc_layers(width, fc_channels, own_fcs))
            widths.append(fc_channels if own_fcs else width)
        self.fc_cls = nn.Linear(widths[0], num_classes + 1)
        self.fc_reg = nn.Linear(widths[1], 4 if class_agnostic else 4 * num_classes)
        for name in ("shared_fcs", "cls_fcs", "reg_fcs"):
            init_xavier(self.get_submodule(name))
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        zero_bias(self.fc_cls)
        zero_bias(self.fc_reg)

    def shared(self, x: Tensor) -> Tensor:
        """(R, C, S, S) to what both branches read: (R, F), or a map where there are no shared layers to flatten it."""
        for conv in self.shared_convs:
            x = conv(x)
        if len(self.shared_fcs):
            x = x.flatten(1)
        for fc in self.shared_fcs:
            x = fc(x).relu()
        return x

    def branch(self, x: Tensor, name: str) -> Tensor:
        """The features of ``shared`` to those of the classes (``cls``) or boxes (``reg``), (R, F)."""
        for conv in self.get_submodule(f"{name}_convs").children():
            x = conv(x)
        if x.dim() > 2:
            x = x.mean(dim=(2, 3)) if self.average else x.flatten(1)
        for fc in self.get_submodule(f"{name}_fcs").children():
            x = fc(x).relu()
        return x

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features of ``shared`` to class logits and box codes."""
        return self.fc_cls(self.branch(x, "cls")).float(), self.fc_reg(self.branch(x, "reg")).float()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.outputs(self.shared(x))

    def loss(
        self,
        logits: Tensor,
        codes: Tensor,
        regions: Sequence[SampledRegions],
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Classification over all regions; regression over positives, divided by the number of all regions.

        weights: (R,) of the classification.
        """
        labels = region_labels(regions, self.num_classes)
        count = len(labels)
        positive = labels < self.num_classes
        losses = {"loss_cls": self.class_loss(logits, labels, weights, max(count, 1))}
        if not bool(positive.any()):
            return {**losses, "loss_bbox": codes.sum() * 0}
        pred = codes[positive] if self.class_agnostic else by_class(codes[positive], labels[positive])
        priors = torch.cat([r.positive_boxes for r in regions])
        wanted = torch.cat([r.matched_boxes for r in regions])
        if self.box_loss.on_boxes:
            pred = self.coder.decode(priors, pred)
        else:
            wanted = self.coder.encode(priors, wanted)
        return {**losses, "loss_bbox": self.box_loss(pred, wanted, None, count)}

    def refine(self, boxes: Tensor, labels: Tensor, codes: Tensor, size: ImageSize | None = None) -> Tensor:
        """(R, 4) boxes moved by the codes of their (R,) labels, cut to an image of (h, w) where given."""
        return self.coder.decode(boxes, codes if self.class_agnostic else by_class(codes, labels), size)

    def decode(self, boxes: Tensor, codes: Tensor, size: ImageSize) -> Tensor:
        """(R, 4) boxes and all their codes to (R, 4), or (R, K, 4) where each class has its own box."""
        if self.class_agnostic:
            return self.coder.decode(boxes, codes, size)
        codes = codes.unflatten(1, (self.num_classes, 4))
        return self.coder.decode(boxes[:, None].expand_as(codes), codes, size)


def by_class(codes: Tensor, labels: Tensor) -> Tensor:
    """(R, 4 K) codes to the (R, 4) of each region's label."""
    return codes.unflatten(1, (-1, 4))[torch.arange(codes.shape[0], device=codes.device), labels]


def region_labels(regions: Sequence[SampledRegions], num_classes: int) -> Tensor:
    """(R,) label of every sampled region, ``num_classes`` for background."""
    labels = [r.labels.new_full((len(r.boxes),), num_classes) for r in regions]
    for label, region in zip(labels, regions, strict=True):
        label[: len(region.labels)] = region.labels
    return torch.cat(labels)
