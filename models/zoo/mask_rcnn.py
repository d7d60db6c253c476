"""Mask R-CNN: the rows of its document."""

from __future__ import annotations

from dataclasses import replace

from ..methods.mask_rcnn import mask_rcnn
from .common import COCO, R50, row

BASE = replace(COCO, needs_masks=True)

RECIPES = [
    row("mask_rcnn_r50_fpn_1x_coco", mask_rcnn, R50, BASE),
]
