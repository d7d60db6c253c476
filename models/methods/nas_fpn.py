"""RetinaNet as trained by "NAS-FPN: Learning Scalable Feature Pyramid Architecture for Object Detection" (Ghiasi et
al.): the towers share their convolutions over the levels, but each level has its own batch normalization.

Shape letters: B images, A anchors of a location, K classes, H x W locations of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..assigners import MaxIoUAssigner
from ..backbones.resnet import ResNet
from ..dense.anchor_targets import Assign
from ..detectors.single_stage import SingleStageDetector
from ..layers import BN, Norm
from ..settings import DenseTest
from .retinanet import RetinaHead, tower


def level_towers(in_channels: int, channels: int, depth: int, levels: int, norm: Norm) -> nn.ModuleList:
    """A tower for each level; the convolutions of all are those of the first."""
    towers = nn.ModuleList(tower(in_channels, channels, depth, norm) for _ in range(levels))
    for own in towers:
        for conv, shared in zip(own, towers[0], strict=True):  # type: ignore[arg-type]
            conv.conv = shared.conv
    return towers


class RetinaSepBNHead(RetinaHead):
    """A RetinaNet head whose batch statistics are those of one level; outputs and further ``parts`` as of
    ``RetinaHead``."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 256,
        channels: int = 256,
        depth: int = 4,
        norm: Norm = BN,
        assigner: Assign | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_channels=in_channels,
            channels=channels,
            depth=depth,
            assigner=assigner or MaxIoUAssigner(positive=0.5, negative=0.5),
            **parts,
        )
        levels = len(self.anchors.strides)
        self.cls_convs = level_towers(in_channels, channels, depth, levels, norm)
        self.reg_convs = level_towers(in_channels, channels, depth, levels, norm)
        for convs in (*self.cls_convs, *self.reg_convs):
            for conv in convs:  # type: ignore[union-attr]
                nn.init.normal_(conv.conv.weight, std=0.01)
        self.register_load_state_dict_pre_hook(self.share_stored)

    @staticmethod
    def share_stored(module: nn.Module, state: dict[str, Tensor], prefix: str, *_) -> None:
        """Let a state that stores the shared convolutions once, with the first level, load for all levels."""
        for name in ("cls_convs", "reg_convs"):
            for level, convs in enumerate(module.get_submodule(name)):  # type: ignore[arg-type]
                for index in range(len(convs)):
                    first = f"{prefix}{name}.0.{index}.conv.weight"
                    if first in state:
                        state.setdefault(f"{prefix}{name}.{level}.{index}.conv.weight", state[first])

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, codes = [], []
        for x, cls_convs, reg_convs in zip(features, self.cls_convs, self.reg_convs, strict=True):
            scored, located = x, x
            for conv in cls_convs:  # type: ignore[union-attr]
                scored = conv(scored)
            for conv in reg_convs:  # type: ignore[union-attr]
                located = conv(located)
            logits.append(self.retina_cls(scored))
            codes.append(self.retina_reg(located))
        return logits, codes


def retinanet_sep_bn(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    neck: Callable[[tuple[int, ...]], nn.Module],
) -> SingleStageDetector:
    """RetinaNet with batch normalization of its own for every level; ``neck`` is built from the backbone's channels."""
    body = backbone()
    pyramid = neck(body.out_channels)
    return SingleStageDetector(
        backbone=body,
        neck=pyramid,
        bbox_head=RetinaSepBNHead(num_classes=num_classes, in_channels=pyramid.out_channels[0]),  # type: ignore[index]
        test=DenseTest(),
    )
