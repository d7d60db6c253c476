"""Res2Net backbones: the rows of "Res2Net for object detection and instance segmentation"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.res2net import res2net
from ..methods.cascade_rcnn import cascade_mask_rcnn, cascade_rcnn
from ..methods.faster_rcnn import faster_rcnn
from ..methods.htc import htc
from ..methods.mask_rcnn import mask_rcnn
from .common import COCO, TWENTY_EPOCHS, TWO_X, Body, row
from .htc import LONG

MASKS = replace(COCO, needs_masks=True)
R2_101 = Body(partial(res2net, 101), "open-mmlab://res2net101_v1d_26w_4s")

RECIPES = [
    row("faster_rcnn_r2_101_fpn_2x_coco", faster_rcnn, R2_101, COCO, schedule=TWO_X),
    row("mask_rcnn_r2_101_fpn_2x_coco", mask_rcnn, R2_101, MASKS, schedule=TWO_X),
    row("cascade_rcnn_r2_101_fpn_20e_coco", cascade_rcnn, R2_101, COCO, schedule=TWENTY_EPOCHS),
    row("cascade_mask_rcnn_r2_101_fpn_20e_coco", cascade_mask_rcnn, R2_101, MASKS, schedule=TWENTY_EPOCHS),
    row("htc_r2_101_fpn_20e_coco", htc, R2_101, LONG),
]
