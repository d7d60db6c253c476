"""Sparse R-CNN: the rows of "Sparse R-CNN: End-to-End Object Detection with Learnable Proposals"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Flip, Resize
from ..methods.sparse_rcnn import sparse_rcnn
from ..recipe import Optimizer, Schedule
from .common import COCO, R50, R101, row
from .detr import SIZES, crop_policy

BASE = replace(COCO, optimizer=Optimizer("adamw", lr=2.5e-5, weight_decay=1e-4, clip_norm=1.0))
LONG = replace(BASE, schedule=Schedule(epochs=36, drops=(27, 33)), train_transforms=(Resize(SIZES), Flip()))
CROPPED = replace(LONG, train_transforms=crop_policy())
MANY = partial(sparse_rcnn, proposals=300)

RECIPES = [
    row("sparse_rcnn_r50_fpn_1x_coco", sparse_rcnn, R50, BASE),
    row("sparse_rcnn_r50_fpn_mstrain_480-800_3x_coco", sparse_rcnn, R50, LONG),
    row("sparse_rcnn_r50_fpn_300_proposals_crop_mstrain_480-800_3x_coco", MANY, R50, CROPPED),
    row("sparse_rcnn_r101_fpn_mstrain_480-800_3x_coco", sparse_rcnn, R101, LONG),
    row("sparse_rcnn_r101_fpn_300_proposals_crop_mstrain_480-800_3x_coco", MANY, R101, CROPPED),
]
