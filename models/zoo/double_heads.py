"""Double-Head R-CNN: the row of its document."""

from __future__ import annotations

from ..methods.double_heads import double_heads
from .common import COCO, R50, row

RECIPES = [row("dh_faster_rcnn_r50_fpn_1x_coco", double_heads, R50, COCO)]
