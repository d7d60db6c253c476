"""Libra R-CNN: the rows of "Libra R-CNN: Towards Balanced Learning for Object Detection"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.libra_rcnn import libra_fast_rcnn, libra_faster_rcnn, libra_retinanet
from ..recipe import Optimizer
from .common import COCO, R50, R101, X101_64X4D, row
from .fast_rcnn import BASE as FAST

RECIPES = [
    row("libra_faster_rcnn_r50_fpn_1x_coco", libra_faster_rcnn, R50, COCO),
    row("libra_faster_rcnn_r101_fpn_1x_coco", libra_faster_rcnn, R101, COCO),
    row("libra_faster_rcnn_x101_64x4d_fpn_1x_coco", libra_faster_rcnn, X101_64X4D, COCO),
    row("libra_fast_rcnn_r50_fpn_1x_coco", libra_fast_rcnn, R50, FAST),
    row("libra_retinanet_r50_fpn_1x_coco", libra_retinanet, R50, replace(COCO, optimizer=Optimizer(lr=0.01))),
]
