"""Region proposal networks on their own: the RPN rows of the Faster R-CNN document."""

from __future__ import annotations

from ..methods.rpn import rpn
from .common import COCO, R50, R50_CAFFE, R101, R101_CAFFE, TWO_X, X101_32X4D, X101_64X4D, row

RECIPES = [
    row("rpn_r50_caffe_fpn_1x_coco", rpn, R50_CAFFE, COCO),
    row("rpn_r50_fpn_1x_coco", rpn, R50, COCO),
    row("rpn_r50_fpn_2x_coco", rpn, R50, COCO, schedule=TWO_X),
    row("rpn_r101_caffe_fpn_1x_coco", rpn, R101_CAFFE, COCO),
    row("rpn_r101_fpn_1x_coco", rpn, R101, COCO),
    row("rpn_r101_fpn_2x_coco", rpn, R101, COCO, schedule=TWO_X),
    row("rpn_x101_32x4d_fpn_1x_coco", rpn, X101_32X4D, COCO),
    row("rpn_x101_32x4d_fpn_2x_coco", rpn, X101_32X4D, COCO, schedule=TWO_X),
    row("rpn_x101_64x4d_fpn_1x_coco", rpn, X101_64X4D, COCO),
    row("rpn_x101_64x4d_fpn_2x_coco", rpn, X101_64X4D, COCO, schedule=TWO_X),
]
