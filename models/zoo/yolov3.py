"""YOLOv3 on Darknet-53: the rows of "YOLOv3"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import Expand, Flip, MinIoUCrop, PhotometricDistortion, Preprocessing, Resize
from ..backbones.darknet import Darknet
from ..methods.yolov3 import yolov3
from ..recipe import Optimizer, Schedule
from .common import COCO, Body, row

DARKNET53 = Body(Darknet, "open-mmlab://darknet53", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))


def transforms(*sizes: tuple[int, int]):
    """Expand, crop, resize to one size or between two, flip and colour."""
    return (
        Expand(ratio_range=(1, 2), fill=(0, 0, 0)),
        MinIoUCrop(ious=(0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
        Resize(sizes, draw="range" if len(sizes) == 2 else "value"),
        Flip(),
        PhotometricDistortion(),
    )


BASE = replace(
    COCO,
    preprocessing=Preprocessing(size=(320, 320)),
    train_transforms=transforms((320, 320)),
    images_per_device=8,
    optimizer=Optimizer(lr=0.001, weight_decay=5e-4, clip_norm=35.0),
    schedule=Schedule(epochs=273, drops=(218, 246), warmup_steps=2000, warmup_factor=0.1),
)

RECIPES = [row("yolov3_d53_320_273e_coco", yolov3, DARKNET53, BASE)]
RECIPES += [
    row(
        f"yolov3_d53_mstrain-{size}_273e_coco",
        yolov3,
        DARKNET53,
        BASE,
        preprocessing=Preprocessing(size=(size, size)),
        train_transforms=transforms((320, 320), (size, size)),
    )
    for size in (416, 608)
]
