"""YOLACT: the rows of "You Only Look At CoefficienTs"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import (
    DropSmallBoxes,
    Expand,
    Flip,
    MinIoUCrop,
    PhotometricDistortion,
    Preprocessing,
    Resize,
)
from ..methods.yolact import yolact
from ..recipe import Optimizer, Schedule
from .common import COCO, R50, R101, Body, row

MEAN = (123.68, 116.78, 103.94)
STD = (58.4, 57.12, 57.38)
OPTIMIZER = Optimizer(lr=0.001, weight_decay=5e-4)
SCHEDULE = Schedule(epochs=55, drops=(20, 42, 49, 52), warmup_factor=0.1)
# One device with eight images, unless the name says otherwise.
BASE = replace(
    COCO,
    needs_masks=True,
    preprocessing=Preprocessing(size=(550, 550), keep_ratio=False, divisor=1),
    train_transforms=(
        DropSmallBoxes((4.0, 4.0)),
        Expand(fill=MEAN),
        MinIoUCrop(),
        Resize(((550, 550),), keep_ratio=False),
        Flip(),
        PhotometricDistortion(),
    ),
    images_per_device=8,
    devices=1,
    optimizer=OPTIMIZER,
    schedule=SCHEDULE,
)


def body(base: Body) -> Body:
    """The backbone, all of it trained with its own batch statistics."""
    return replace(base.built_with(frozen_stages=-1, norm_eval=False), mean=MEAN, std=STD)


RECIPES = [
    row("yolact_r50_1x8_coco", yolact, body(R50), BASE),
    row("yolact_r101_1x8_coco", yolact, body(R101), BASE),
    row(
        "yolact_r50_8x8_coco",
        yolact,
        body(R50),
        BASE,
        devices=8,
        optimizer=replace(OPTIMIZER, lr=0.008, clip_norm=35.0),
        schedule=replace(SCHEDULE, warmup_steps=1000),
    ),
]
