"""Mask R-CNN: the rows of its document."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.resnet import ResNet, resnext_block
from ..layers import FROZEN_BN
from ..methods.mask_rcnn import mask_rcnn
from ..recipe import Schedule
from .common import (
    CAFFE_MEAN,
    COCO,
    LONG,
    MULTI_SCALE_FLIP,
    R50,
    R50_CAFFE,
    R101,
    R101_CAFFE,
    THREE_X,
    TWO_X,
    X101_32X4D,
    X101_64X4D,
    Body,
    row,
)

BASE = replace(COCO, needs_masks=True)
POLYGONS = replace(BASE, train_transforms=MULTI_SCALE_FLIP)
X101_32X8D = Body(
    partial(ResNet, 101, block=resnext_block(32, 8), norm=FROZEN_BN),
    "open-mmlab://detectron2/resnext101_32x8d",
    mean=CAFFE_MEAN,
    std=(57.375, 57.12, 58.395),
    channels="bgr",
)

RECIPES = [
    row("mask_rcnn_r50_caffe_fpn_1x_coco", mask_rcnn, R50_CAFFE, BASE),
    row("mask_rcnn_r50_fpn_1x_coco", mask_rcnn, R50, BASE),
    row("mask_rcnn_r50_fpn_2x_coco", mask_rcnn, R50, BASE, schedule=TWO_X),
    row("mask_rcnn_r101_caffe_fpn_1x_coco", mask_rcnn, R101_CAFFE, BASE),
    row("mask_rcnn_r101_fpn_1x_coco", mask_rcnn, R101, BASE),
    row("mask_rcnn_r101_fpn_2x_coco", mask_rcnn, R101, BASE, schedule=TWO_X),
    row("mask_rcnn_x101_32x4d_fpn_1x_coco", mask_rcnn, X101_32X4D, BASE),
    row("mask_rcnn_x101_32x4d_fpn_2x_coco", mask_rcnn, X101_32X4D, BASE, schedule=TWO_X),
    row("mask_rcnn_x101_64x4d_fpn_1x_coco", mask_rcnn, X101_64X4D, BASE),
    row("mask_rcnn_x101_64x4d_fpn_2x_coco", mask_rcnn, X101_64X4D, BASE, schedule=TWO_X),
    row(
        "mask_rcnn_r50_caffe_fpn_mstrain-poly_2x_coco",
        mask_rcnn,
        R50_CAFFE,
        POLYGONS,
        schedule=Schedule(epochs=24, drops=(16, 23)),
    ),
    row("mask_rcnn_r50_caffe_fpn_mstrain-poly_3x_coco", mask_rcnn, R50_CAFFE, POLYGONS, schedule=THREE_X),
    row("mask_rcnn_x101_32x8d_fpn_mstrain-poly_3x_coco", mask_rcnn, X101_32X8D, LONG, needs_masks=True),
]
