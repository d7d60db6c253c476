"""CentripetalNet: the row of "CentripetalNet: Pursuing High-quality Keypoint Pairs for Object Detection"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.centripetalnet import centripetalnet
from ..recipe import Schedule
from .common import row
from .cornernet import BASE, HOURGLASS_104

RECIPES = [
    row(
        "centripetalnet_hourglass104_mstest_16x6_210e_coco",
        centripetalnet,
        HOURGLASS_104,
        replace(BASE, schedule=Schedule(epochs=210, drops=(190,), warmup_factor=1 / 3)),
        images_per_device=6,
        devices=16,
    )
]
