"""SABL: the rows of "Side-Aware Boundary Localization for More Precise Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Flip, Resize
from ..layers import GN
from ..methods.sabl import sabl_cascade_rcnn, sabl_faster_rcnn, sabl_retinanet
from ..recipe import Optimizer
from .common import COCO, R50, R101, TWO_X, row

RETINA = replace(COCO, optimizer=Optimizer(lr=0.01))
with_norm = partial(sabl_retinanet, norm=GN)

RECIPES = [
    row("sabl_faster_rcnn_r50_fpn_1x_coco", sabl_faster_rcnn, R50, COCO),
    row("sabl_faster_rcnn_r101_fpn_1x_coco", sabl_faster_rcnn, R101, COCO),
    row("sabl_cascade_rcnn_r50_fpn_1x_coco", sabl_cascade_rcnn, R50, COCO),
    row("sabl_cascade_rcnn_r101_fpn_1x_coco", sabl_cascade_rcnn, R101, COCO),
    row("sabl_retinanet_r50_fpn_1x_coco", sabl_retinanet, R50, RETINA),
    row("sabl_retinanet_r50_fpn_gn_1x_coco", with_norm, R50, RETINA),
    row("sabl_retinanet_r101_fpn_1x_coco", sabl_retinanet, R101, RETINA),
    row("sabl_retinanet_r101_fpn_gn_1x_coco", with_norm, R101, RETINA),
]
RECIPES += [
    row(
        f"sabl_retinanet_r101_fpn_gn_2x_ms_{low}_{high}_coco",
        with_norm,
        R101,
        RETINA,
        schedule=TWO_X,
        train_transforms=(Resize(((1333, low), (1333, high)), draw="range"), Flip()),
    )
    for low, high in ((640, 800), (480, 960))
]
