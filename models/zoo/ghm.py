"""GHM: the rows of "Gradient Harmonized Single-stage Detector"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.ghm import ghm_retinanet
from ..recipe import Optimizer
from .common import COCO, R50, R101, X101_32X4D, X101_64X4D, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01, clip_norm=35))

RECIPES = [
    row("retinanet_ghm_r50_fpn_1x_coco", ghm_retinanet, R50, BASE),
    row("retinanet_ghm_r101_fpn_1x_coco", ghm_retinanet, R101, BASE),
    row("retinanet_ghm_x101_32x4d_fpn_1x_coco", ghm_retinanet, X101_32X4D, BASE),
    row("retinanet_ghm_x101_64x4d_fpn_1x_coco", ghm_retinanet, X101_64X4D, BASE),
]
