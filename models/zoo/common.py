"""What the published rows have in common: backbones, schedules, preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from ...datasets.transforms import Flip, PadTo, Preprocessing, RandomCrop, Resize, ScaleJitter
from ...datasets.transforms.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from ..backbones.resnet import Deform, Plugin, ResNet, resnext_block
from ..layers import FROZEN_BN, DeformConv2d, ModulatedDeformConv2d
from ..layers.context_block import ContextBlock
from ..recipe import Optimizer, Recipe, Sampling, Schedule

DETECTRON_MEAN = (102.9801, 115.9465, 122.7717)
NO_STD = (1.0, 1.0, 1.0)
BGR_MEAN = (103.53, 116.28, 123.675)
CAFFE_MEAN = BGR_MEAN
BGR_STD = (57.375, 57.12, 58.395)


@dataclass(frozen=True)
class Body:
    """A backbone: how it is built, the name of its pretrained weights, and the pixels that these were trained on."""

    build: Callable[..., nn.Module]
    weights: str | None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channels: str = "rgb"

    def built_with(self, **options: Any) -> Body:
        """The same backbone with other arguments of its builder."""
        return replace(self, build=partial(self.build, **options))


def row(name: str, method: Callable[..., nn.Module], body: Body, base: Recipe, **changes: Any) -> Recipe:
    """The recipe of one row: a method's builder on a backbone, otherwise as ``base``.

    changes: fields of ``Recipe`` in which the row differs from ``base``.
    """
    recipe = replace(base, name=name, build=partial(method, backbone=body.build), backbone_weights=body.weights)
    recipe = replace(recipe, **changes)
    pixels = replace(recipe.preprocessing, mean=body.mean, std=body.std, channels=body.channels)
    return replace(recipe, preprocessing=pixels)


R18 = Body(partial(ResNet, 18), "torchvision://resnet18")
R34 = Body(partial(ResNet, 34), "torchvision://resnet34")
R50 = Body(partial(ResNet, 50), "torchvision://resnet50")
R101 = Body(partial(ResNet, 101), "torchvision://resnet101")
R50_CAFFE = Body(
    partial(ResNet, 50, style="caffe", norm=FROZEN_BN),
    "open-mmlab://detectron2/resnet50_caffe",
    mean=CAFFE_MEAN,
    std=NO_STD,
    channels="bgr",
)
R101_CAFFE = replace(
    R50_CAFFE,
    build=partial(ResNet, 101, style="caffe", norm=FROZEN_BN),
    weights="open-mmlab://detectron2/resnet101_caffe",
)
R50_DETECTRON = replace(R50_CAFFE, weights="open-mmlab://detectron/resnet50_caffe", mean=DETECTRON_MEAN)
R101_DETECTRON = replace(R101_CAFFE, weights="open-mmlab://detectron/resnet101_caffe", mean=DETECTRON_MEAN)
X50_32X4D = Body(partial(ResNet, 50, block=resnext_block(32, 4)), "open-mmlab://resnext50_32x4d")
X101_32X4D = Body(partial(ResNet, 101, block=resnext_block(32, 4)), "open-mmlab://resnext101_32x4d")
X101_64X4D = Body(partial(ResNet, 101, block=resnext_block(64, 4)), "open-mmlab://resnext101_64x4d")

# What stands in stages three to five of a backbone.
DCN = Deform(DeformConv2d)
DCNV2 = Deform(ModulatedDeformConv2d)
CONTEXT_R4 = Plugin("context_block", partial(ContextBlock, ratio=1 / 4))
CONTEXT_R16 = Plugin("context_block", partial(ContextBlock, ratio=1 / 16))

ONE_X = Schedule(epochs=12, drops=(8, 11))
TWO_X = Schedule(epochs=24, drops=(16, 22))
THREE_X = Schedule(epochs=36, drops=(28, 34))
TWENTY_EPOCHS = Schedule(epochs=20, drops=(16, 19))

RESIZE_FLIP = (Resize(), Flip())
SHORT_EDGES = tuple((1333, short) for short in (640, 672, 704, 736, 768, 800))
MULTI_SCALE_FLIP = (Resize(SHORT_EDGES), Flip())
RANGE_SCALE_FLIP = (Resize(((1333, 640), (1333, 800)), draw="range"), Flip())
COCO = Recipe(name="", build=nn.Identity, train_transforms=RESIZE_FLIP)
"""What most rows share: COCO, 1333 x 800, flips, 16 images a step, learning rate 0.02, twelve epochs."""
LONG = replace(
    COCO,
    train_transforms=RANGE_SCALE_FLIP,
    sampling=Sampling(repeats=3),
    schedule=Schedule(epochs=12, drops=(9, 11)),
)
"""Twelve epochs of three rounds each, short edges between 640 and 800."""
CROP_640 = replace(
    COCO,
    preprocessing=Preprocessing(size=(640, 640), divisor=64),
    train_transforms=(ScaleJitter((640, 640), (0.8, 1.2)), RandomCrop((640, 640)), Flip(), PadTo((640, 640))),
    images_per_device=8,
    optimizer=Optimizer(lr=0.08, norm_decay_factor=0.0),
    schedule=Schedule(epochs=50, drops=(30, 40), warmup_steps=1000, warmup_factor=0.1),
)
"""Training on crops of 640 x 640 with large batches."""
