"""FoveaBox: the rows of "FoveaBox: Beyond Anchor-based Object Detector"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Flip, Resize
from ..methods.foveabox import foveabox
from ..recipe import Optimizer
from .common import COCO, R50, R101, TWO_X, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01), images_per_device=4, devices=4)
LONG = replace(BASE, schedule=TWO_X)
MULTI_SCALE = replace(LONG, train_transforms=(Resize(((1333, 640), (1333, 800))), Flip()))

aligned = partial(foveabox, align=True)

RECIPES = [
    row("fovea_r50_fpn_4x4_1x_coco", foveabox, R50, BASE),
    row("fovea_r50_fpn_4x4_2x_coco", foveabox, R50, LONG),
    row("fovea_align_r50_fpn_gn-head_4x4_2x_coco", aligned, R50, LONG, optimizer=Optimizer(lr=0.01, clip_norm=35)),
    row("fovea_align_r50_fpn_gn-head_mstrain_640-800_4x4_2x_coco", aligned, R50, MULTI_SCALE),
    row("fovea_r101_fpn_4x4_1x_coco", foveabox, R101, BASE),
    row("fovea_r101_fpn_4x4_2x_coco", foveabox, R101, LONG),
    row("fovea_align_r101_fpn_gn-head_4x4_2x_coco", aligned, R101, LONG),
    row("fovea_align_r101_fpn_gn-head_mstrain_640-800_4x4_2x_coco", aligned, R101, MULTI_SCALE),
]
