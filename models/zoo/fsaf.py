"""FSAF: the rows of "Feature Selective Anchor-Free Module for Single-Shot Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..methods.fsaf import fsaf
from ..recipe import Optimizer
from .common import COCO, R50, R101, X101_64X4D, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01, clip_norm=10))

RECIPES = [
    row("fsaf_r50_fpn_1x_coco", fsaf, R50, BASE),
    row("fsaf_pscale0.2_nscale0.5_r50_fpn_1x_coco", partial(fsaf, shadow=0.5), R50, BASE),
    row("fsaf_r101_fpn_1x_coco", fsaf, R101, BASE),
    row("fsaf_x101_64x4d_fpn_1x_coco", fsaf, X101_64X4D, BASE),
]
