"""Region proposal networks on their own: the RPN rows of the Faster R-CNN document."""

from __future__ import annotations

from ..methods.rpn import rpn
from .common import COCO, R50, row

RECIPES = [
    row("rpn_r50_fpn_1x_coco", rpn, R50, COCO),
]
