"""RetinaNet: the rows of "Focal Loss for Dense Object Detection"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.retinanet import retinanet
from ..recipe import Optimizer
from .common import COCO, R50, R50_CAFFE, R101, R101_CAFFE, TWO_X, X101_32X4D, X101_64X4D, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01))

RECIPES = [
    row("retinanet_r50_caffe_fpn_1x_coco", retinanet, R50_CAFFE, BASE),
    row("retinanet_r50_fpn_1x_coco", retinanet, R50, BASE),
    row("retinanet_r50_fpn_2x_coco", retinanet, R50, BASE, schedule=TWO_X),
    row("retinanet_r101_caffe_fpn_1x_coco", retinanet, R101_CAFFE, BASE),
    row("retinanet_r101_fpn_1x_coco", retinanet, R101, BASE),
    row("retinanet_r101_fpn_2x_coco", retinanet, R101, BASE, schedule=TWO_X),
    row("retinanet_x101_32x4d_fpn_1x_coco", retinanet, X101_32X4D, BASE),
    row("retinanet_x101_32x4d_fpn_2x_coco", retinanet, X101_32X4D, BASE, schedule=TWO_X),
    row("retinanet_x101_64x4d_fpn_1x_coco", retinanet, X101_64X4D, BASE),
    row("retinanet_x101_64x4d_fpn_2x_coco", retinanet, X101_64X4D, BASE, schedule=TWO_X),
]
