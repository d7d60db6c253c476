"""Faster R-CNN: the rows of its document that detect objects."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..losses import BoundedIoULoss, GIoULoss, IoULoss
from ..methods.faster_rcnn import faster_rcnn, faster_rcnn_dc5
from ..recipe import Schedule
from ..roi.box_head import BoxHead
from .common import (
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
    row,
)

MULTI_SCALE = replace(COCO, train_transforms=MULTI_SCALE_FLIP)
SUBSET = replace(
    MULTI_SCALE,
    start_from="https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/"
    "faster_rcnn_r50_caffe_fpn_mstrain_3x_coco/"
    "faster_rcnn_r50_caffe_fpn_mstrain_3x_coco_bbox_mAP-0.398_20200504_163323-30042637.pth",
)


def with_loss(loss: IoULoss | GIoULoss | BoundedIoULoss):
    """Faster R-CNN whose second stage is trained on decoded boxes."""
    return partial(faster_rcnn, bbox_head=partial(BoxHead, box_loss=loss))


RECIPES = [
    row("faster_rcnn_r50_caffe_dc5_1x_coco", faster_rcnn_dc5, R50_CAFFE, COCO),
    row("faster_rcnn_r50_caffe_fpn_1x_coco", faster_rcnn, R50_CAFFE, COCO),
    row("faster_rcnn_r50_fpn_1x_coco", faster_rcnn, R50, COCO),
    row("faster_rcnn_r50_fpn_2x_coco", faster_rcnn, R50, COCO, schedule=TWO_X),
    row("faster_rcnn_r101_caffe_fpn_1x_coco", faster_rcnn, R101_CAFFE, COCO),
    row("faster_rcnn_r101_fpn_1x_coco", faster_rcnn, R101, COCO),
    row("faster_rcnn_r101_fpn_2x_coco", faster_rcnn, R101, COCO, schedule=TWO_X),
    row("faster_rcnn_x101_32x4d_fpn_1x_coco", faster_rcnn, X101_32X4D, COCO),
    row("faster_rcnn_x101_32x4d_fpn_2x_coco", faster_rcnn, X101_32X4D, COCO, schedule=TWO_X),
    row("faster_rcnn_x101_64x4d_fpn_1x_coco", faster_rcnn, X101_64X4D, COCO),
    row("faster_rcnn_x101_64x4d_fpn_2x_coco", faster_rcnn, X101_64X4D, COCO, schedule=TWO_X),
    # Other regression losses.
    row("faster_rcnn_r50_fpn_iou_1x_coco", with_loss(IoULoss(weight=10.0)), R50, COCO),
    row("faster_rcnn_r50_fpn_giou_1x_coco", with_loss(GIoULoss(weight=10.0)), R50, COCO),
    row("faster_rcnn_r50_fpn_bounded_iou_1x_coco", with_loss(BoundedIoULoss(weight=10.0)), R50, COCO),
    # Models to start from.
    row("faster_rcnn_r50_caffe_dc5_mstrain_1x_coco", faster_rcnn_dc5, R50_CAFFE, MULTI_SCALE),
    row("faster_rcnn_r50_caffe_dc5_mstrain_3x_coco", faster_rcnn_dc5, R50_CAFFE, MULTI_SCALE, schedule=THREE_X),
    row(
        "faster_rcnn_r50_caffe_fpn_mstrain_2x_coco",
        faster_rcnn,
        R50_CAFFE,
        MULTI_SCALE,
        schedule=Schedule(epochs=24, drops=(16, 23)),
    ),
    row("faster_rcnn_r50_caffe_fpn_mstrain_3x_coco", faster_rcnn, R50_CAFFE, LONG),
    row(
        "faster_rcnn_r50_caffe_fpn_mstrain_1x_coco-person",
        faster_rcnn,
        R50_CAFFE,
        SUBSET,
        num_classes=1,
        classes=("person",),
    ),
    row(
        "faster_rcnn_r50_caffe_fpn_mstrain_1x_coco-person-bicycle-car",
        faster_rcnn,
        R50_CAFFE,
        SUBSET,
        num_classes=3,
        classes=("person", "bicycle", "car"),
    ),
]
