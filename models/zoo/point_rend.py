"""PointRend: the rows of its document."""

from __future__ import annotations

from dataclasses import replace

from ..methods.point_rend import point_rend
from .common import COCO, MULTI_SCALE_FLIP, R50_CAFFE, THREE_X, row

BASE = replace(COCO, needs_masks=True, train_transforms=MULTI_SCALE_FLIP)

RECIPES = [
    row("point_rend_r50_caffe_fpn_mstrain_1x_coco", point_rend, R50_CAFFE, BASE),
    row("point_rend_r50_caffe_fpn_mstrain_3x_coco", point_rend, R50_CAFFE, BASE, schedule=THREE_X),
]
