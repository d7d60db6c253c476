"""Grid R-CNN: the rows of its document."""

from __future__ import annotations

from dataclasses import replace

from ..methods.grid_rcnn import grid_rcnn
from ..recipe import Schedule
from .common import COCO, R50, R101, X101_32X4D, X101_64X4D, row

BASE = replace(COCO, schedule=Schedule(epochs=25, drops=(17, 23), warmup_steps=3665, warmup_factor=1 / 80))

RECIPES = [
    row("grid_rcnn_r50_fpn_gn-head_2x_coco", grid_rcnn, R50, BASE),
    row("grid_rcnn_r101_fpn_gn-head_2x_coco", grid_rcnn, R101, BASE),
    row("grid_rcnn_x101_32x4d_fpn_gn-head_2x_coco", grid_rcnn, X101_32X4D, BASE),
    row("grid_rcnn_x101_64x4d_fpn_gn-head_2x_coco", grid_rcnn, X101_64X4D, BASE),
]
