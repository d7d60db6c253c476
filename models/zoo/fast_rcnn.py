"""Fast R-CNN: the rows of its document, on the 2,000 best precomputed proposals of each image."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import TopProposals
from ..methods.fast_rcnn import fast_rcnn
from .common import COCO, R50, R50_CAFFE, R101, R101_CAFFE, RESIZE_FLIP, TWO_X, row

BASE = replace(COCO, needs_proposals=True, train_transforms=(TopProposals(2000), *RESIZE_FLIP))

RECIPES = [
    row("fast_rcnn_r50_caffe_fpn_1x_coco", fast_rcnn, R50_CAFFE, BASE),
    row("fast_rcnn_r50_fpn_1x_coco", fast_rcnn, R50, BASE),
    row("fast_rcnn_r50_fpn_2x_coco", fast_rcnn, R50, BASE, schedule=TWO_X),
    row("fast_rcnn_r101_caffe_fpn_1x_coco", fast_rcnn, R101_CAFFE, BASE),
    row("fast_rcnn_r101_fpn_1x_coco", fast_rcnn, R101, BASE),
    row("fast_rcnn_r101_fpn_2x_coco", fast_rcnn, R101, BASE, schedule=TWO_X),
]
