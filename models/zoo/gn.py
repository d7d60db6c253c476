"""Group normalization everywhere: the rows of "Group Normalization"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..layers import GN
from ..methods.mask_rcnn import mask_rcnn
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead
from ..roi.mask_head import FCNMaskHead
from .common import CAFFE_MEAN, COCO, NO_STD, R50, R101, THREE_X, TWO_X, row

BASE = replace(COCO, needs_masks=True)
METHOD = partial(
    mask_rcnn,
    neck=partial(FPN, norm=GN),
    bbox_head=partial(BoxHead, convs=4, fcs=1, norm=GN),
    mask_head=partial(FCNMaskHead, norm=GN),
)
CAFFE = {"mean": CAFFE_MEAN, "std": NO_STD, "channels": "bgr"}
R50_GN = replace(R50.built_with(norm=GN), weights="open-mmlab://detectron/resnet50_gn", **CAFFE)
R101_GN = replace(R101.built_with(norm=GN), weights="open-mmlab://detectron/resnet101_gn", **CAFFE)
R50_GN_CONTRIB = replace(R50.built_with(norm=GN), weights="open-mmlab://contrib/resnet50_gn")

RECIPES = [
    row("mask_rcnn_r50_fpn_gn-all_2x_coco", METHOD, R50_GN, BASE, schedule=TWO_X),
    row("mask_rcnn_r50_fpn_gn-all_3x_coco", METHOD, R50_GN, BASE, schedule=THREE_X),
    row("mask_rcnn_r101_fpn_gn-all_2x_coco", METHOD, R101_GN, BASE, schedule=TWO_X),
    row("mask_rcnn_r101_fpn_gn-all_3x_coco", METHOD, R101_GN, BASE, schedule=THREE_X),
    row("mask_rcnn_r50_fpn_gn-all_contrib_2x_coco", METHOD, R50_GN_CONTRIB, BASE, schedule=TWO_X),
    row("mask_rcnn_r50_fpn_gn-all_contrib_3x_coco", METHOD, R50_GN_CONTRIB, BASE, schedule=THREE_X),
]
