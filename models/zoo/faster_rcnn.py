"""Faster R-CNN: the rows of its document that detect objects."""

from __future__ import annotations

from ..methods.faster_rcnn import faster_rcnn
from .common import COCO, R50, TWO_X, row

RECIPES = [
    row("faster_rcnn_r50_fpn_1x_coco", faster_rcnn, R50, COCO),
    row("faster_rcnn_r50_fpn_2x_coco", faster_rcnn, R50, COCO, schedule=TWO_X),
]
