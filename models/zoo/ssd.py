"""SSD on VGG-16: the rows of "SSD: Single Shot MultiBox Detector", "WIDER Face Dataset" and the first generation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Expand, Flip, MinIoUCrop, PhotometricDistortion, Preprocessing, Resize
from ..backbones.vgg import SSDVGG
from ..methods.legacy import LegacyDeltaCoder, legacy_ssd_anchors
from ..methods.ssd import SSD512, ssd
from ..recipe import Optimizer, Sampling, Schedule
from .common import COCO, NO_STD, TWO_X, Body, row

VGG16 = Body(SSDVGG, "open-mmlab://vgg16_caffe", std=NO_STD)
OPTIMIZER = Optimizer(lr=0.002, weight_decay=5e-4)


def crops(size: int):
    """Expand, crop, resize, flip and colour."""
    return (Expand(), MinIoUCrop(), Resize(((size, size),), keep_ratio=False), Flip(), PhotometricDistortion())


FIRST_COLOURS = (
    PhotometricDistortion(),
    Expand(),
    MinIoUCrop(),
    Resize(((300, 300),), keep_ratio=False),
    Flip(),
)
BASE_300 = replace(
    COCO,
    preprocessing=Preprocessing(size=(300, 300), keep_ratio=False, divisor=1),
    train_transforms=crops(300),
    sampling=Sampling(repeats=5),
    images_per_device=8,
    optimizer=OPTIMIZER,
    schedule=TWO_X,
)
BASE_512 = replace(
    BASE_300,
    preprocessing=Preprocessing(size=(512, 512), keep_ratio=False, divisor=1),
    train_transforms=crops(512),
)

RECIPES = [
    row("ssd300_coco", ssd, VGG16, BASE_300),
    row("ssd512_coco", partial(ssd, layout=SSD512), VGG16, BASE_512),
    row(
        "ssd300_wider_face",
        ssd,
        VGG16,
        BASE_300,
        dataset="wider_face",
        num_classes=1,
        train_transforms=FIRST_COLOURS,
        sampling=Sampling(repeats=2),
        images_per_device=60,
        optimizer=Optimizer(lr=0.012, weight_decay=5e-4, clip_norm=35.0),
        schedule=Schedule(epochs=24, drops=(16, 20), warmup_steps=1000),
    ),
    row(
        "ssd300_coco_v1",
        partial(ssd, anchors=legacy_ssd_anchors, coder=LegacyDeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))),
        VGG16,
        BASE_300,
        train_transforms=FIRST_COLOURS,
    ),
]
