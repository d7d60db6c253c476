"""FreeAnchor: the rows of "FreeAnchor: Learning to Match Anchors for Visual Object Detection"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.free_anchor import free_anchor_retinanet
from ..recipe import Optimizer
from .common import COCO, R50, R101, X101_32X4D, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01, clip_norm=35))

RECIPES = [
    row("retinanet_free_anchor_r50_fpn_1x_coco", free_anchor_retinanet, R50, BASE),
    row("retinanet_free_anchor_r101_fpn_1x_coco", free_anchor_retinanet, R101, BASE),
    row("retinanet_free_anchor_x101_32x4d_fpn_1x_coco", free_anchor_retinanet, X101_32X4D, BASE),
]
