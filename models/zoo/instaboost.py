"""Pasted objects as augmentation: the rows of "InstaBoost for MMDetection"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import InstaBoost
from ..methods.cascade_rcnn import cascade_mask_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..recipe import Schedule
from .common import COCO, R50, R101, RESIZE_FLIP, X101_64X4D, row

BASE = replace(
    COCO,
    needs_masks=True,
    train_transforms=(InstaBoost(), *RESIZE_FLIP),
    schedule=Schedule(epochs=48, drops=(32, 44)),
)

RECIPES = [
    row("mask_rcnn_r50_fpn_instaboost_4x_coco", mask_rcnn, R50, BASE),
    row("mask_rcnn_r101_fpn_instaboost_4x_coco", mask_rcnn, R101, BASE),
    row("mask_rcnn_x101_64x4d_fpn_instaboost_4x_coco", mask_rcnn, X101_64X4D, BASE),
    row("cascade_mask_rcnn_r50_fpn_instaboost_4x_coco", cascade_mask_rcnn, R50, BASE),
]
