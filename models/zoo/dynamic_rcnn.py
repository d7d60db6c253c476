"""Dynamic R-CNN: the row of "Dynamic R-CNN: Towards High Quality Object Detection via Dynamic Training"."""

from __future__ import annotations

from ..methods.dynamic_rcnn import dynamic_rcnn
from .common import COCO, R50, row

RECIPES = [row("dynamic_rcnn_r50_fpn_1x_coco", dynamic_rcnn, R50, COCO)]
