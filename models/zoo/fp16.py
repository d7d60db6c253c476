"""Half precision: the rows of "Mixed Precision Training"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..methods.retinanet import retinanet
from ..recipe import Optimizer
from .common import COCO, R50, row

BASE = replace(COCO, precision="16")

RECIPES = [
    row("faster_rcnn_r50_fpn_fp16_1x_coco", faster_rcnn, R50, BASE),
    row("mask_rcnn_r50_fpn_fp16_1x_coco", mask_rcnn, R50, BASE, needs_masks=True),
    row("retinanet_r50_fpn_fp16_1x_coco", retinanet, R50, BASE, optimizer=Optimizer(lr=0.01, clip_norm=35.0)),
]
