"""Mask Scoring R-CNN: the rows of its document."""

from __future__ import annotations

from dataclasses import replace

from ..methods.ms_rcnn import ms_rcnn
from .common import COCO, R50_CAFFE, R101_CAFFE, TWO_X, X101_32X4D, X101_64X4D, row

BASE = replace(COCO, needs_masks=True)

RECIPES = [
    row("ms_rcnn_r50_caffe_fpn_1x_coco", ms_rcnn, R50_CAFFE, BASE),
    row("ms_rcnn_r50_caffe_fpn_2x_coco", ms_rcnn, R50_CAFFE, BASE, schedule=TWO_X),
    row("ms_rcnn_r101_caffe_fpn_1x_coco", ms_rcnn, R101_CAFFE, BASE),
    row("ms_rcnn_r101_caffe_fpn_2x_coco", ms_rcnn, R101_CAFFE, BASE, schedule=TWO_X),
    row("ms_rcnn_x101_32x4d_fpn_1x_coco", ms_rcnn, X101_32X4D, BASE),
    row("ms_rcnn_x101_64x4d_fpn_1x_coco", ms_rcnn, X101_64X4D, BASE),
    row("ms_rcnn_x101_64x4d_fpn_2x_coco", ms_rcnn, X101_64X4D, BASE, schedule=TWO_X),
]
