"""Cascade RPN: the rows of its document."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import TopProposals
from ..methods.cascade_rpn import crpn, crpn_fast_rcnn, crpn_faster_rcnn
from ..recipe import Optimizer
from .common import COCO, R50_CAFFE, RESIZE_FLIP, row

CLIPPED = replace(COCO, optimizer=Optimizer(clip_norm=35.0))
FAST = replace(CLIPPED, needs_proposals=True, train_transforms=(TopProposals(300), *RESIZE_FLIP))

RECIPES = [
    row("crpn_r50_caffe_fpn_1x_coco", crpn, R50_CAFFE, CLIPPED),
    row("crpn_fast_rcnn_r50_caffe_fpn_1x_coco", crpn_fast_rcnn, R50_CAFFE, FAST),
    row("crpn_faster_rcnn_r50_caffe_fpn_1x_coco", crpn_faster_rcnn, R50_CAFFE, CLIPPED),
]
