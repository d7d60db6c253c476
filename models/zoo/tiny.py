"""Small detectors that train from random weights on two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...datasets.transforms import Flip, Preprocessing, Resize
from ..backbones.resnet import ResNet
from ..detectors.single_stage import SingleStageDetector
from ..methods.retinanet import RetinaHead, retina_anchors
from ..necks.fpn import FPN
from ..recipe import Optimizer, Recipe, Schedule
from ..settings import DenseTest

STRIDES = (8, 16, 32, 64)


def small_resnet(base_channels: int) -> ResNet:
    """ResNet-18 with fewer channels, all of it trained."""
    return ResNet(18, frozen_stages=-1, norm_eval=False, base_channels=base_channels)


def tiny_retinanet(
    num_classes: int, *, base_channels: int, channels: int, depth: int, strides: Sequence[int] = STRIDES
) -> SingleStageDetector:
    """RetinaNet with a narrow backbone, pyramid and head."""
    body = small_resnet(base_channels)
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, channels, start=1, num_outs=len(strides), extra="input"),
        bbox_head=RetinaHead(
            num_classes=num_classes,
            in_channels=channels,
            channels=channels,
            depth=depth,
            anchors=retina_anchors(strides),
        ),
        test=DenseTest(),
    )


SHAPES = Recipe(
    name="retinanet_tiny_shapes",
    build=partial(tiny_retinanet, base_channels=16, channels=32, depth=2),
    num_classes=4,
    dataset="shapes",
    preprocessing=Preprocessing(size=(128, 128)),
    train_transforms=(Resize(((128, 128),)), Flip()),
    images_per_device=8,
    devices=1,
    optimizer=Optimizer(lr=0.02, clip_norm=10.0),
    schedule=Schedule(epochs=12, warmup_steps=100, decay="cosine", drops=()),
)

RECIPES = [SHAPES]
