"""Hybrid Task Cascade: the rows of its document."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import Flip, Resize
from ..backbones.resnet import Deform
from ..methods.htc import htc
from .common import COCO, R50, R101, TWENTY_EPOCHS, X101_32X4D, X101_64X4D, row

BASE = replace(COCO, needs_masks=True, needs_semantic=True)
LONG = replace(BASE, schedule=TWENTY_EPOCHS)
SINGLE = replace(LONG, images_per_device=1, devices=16)
WIDE_RANGE = (Resize(((1600, 400), (1600, 1400)), draw="range"), Flip())

RECIPES = [
    row("htc_r50_fpn_1x_coco", htc, R50, BASE),
    row("htc_r50_fpn_20e_coco", htc, R50, LONG),
    row("htc_r101_fpn_20e_coco", htc, R101, LONG),
    row("htc_x101_32x4d_fpn_16x1_20e_coco", htc, X101_32X4D, SINGLE),
    row("htc_x101_64x4d_fpn_16x1_20e_coco", htc, X101_64X4D, SINGLE),
    row(
        "htc_x101_64x4d_fpn_dconv_c3-c5_mstrain_400_1400_16x1_20e_coco",
        htc,
        X101_64X4D.built_with(deform=Deform()),
        SINGLE,
        train_transforms=WIDE_RANGE,
    ),
]
