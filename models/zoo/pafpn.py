"""Path aggregation: the row of "Path Aggregation Network for Instance Segmentation"."""

from __future__ import annotations

from functools import partial

from ..methods.faster_rcnn import faster_rcnn
from ..necks.pafpn import PAFPN
from .common import COCO, R50, row

RECIPES = [row("faster_rcnn_r50_pafpn_1x_coco", partial(faster_rcnn, neck=PAFPN), R50, COCO)]
