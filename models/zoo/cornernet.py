"""CornerNet: the rows of "CornerNet: Detecting Objects as Paired Keypoints"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import CenterCropPad, Flip, PhotometricDistortion, Preprocessing, Resize
from ..backbones.hourglass import HourglassNet
from ..methods.cornernet import cornernet
from ..recipe import Optimizer, Schedule
from .common import COCO, Body, row

HOURGLASS_104 = Body(HourglassNet, None)
BASE = replace(
    COCO,
    preprocessing=Preprocessing(size=None, divisor=128, centered=True),
    train_transforms=(
        PhotometricDistortion(),
        CenterCropPad(),
        Resize(((511, 511),), keep_ratio=False),
        Flip(),
    ),
    optimizer=Optimizer("adam", lr=5e-4, weight_decay=0.0, clip_norm=35.0),
    schedule=Schedule(epochs=210, drops=(180,), warmup_factor=1 / 3),
    test_flip=True,
)

RECIPES = [
    row("cornernet_hourglass104_mstest_8x6_210e_coco", cornernet, HOURGLASS_104, BASE, images_per_device=6),
    row(
        "cornernet_hourglass104_mstest_10x5_210e_coco",
        cornernet,
        HOURGLASS_104,
        BASE,
        images_per_device=5,
        devices=10,
    ),
    row(
        "cornernet_hourglass104_mstest_32x3_210e_coco",
        cornernet,
        HOURGLASS_104,
        BASE,
        images_per_device=3,
        devices=32,
    ),
]
