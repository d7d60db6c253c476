"""PAA: the rows of "Probabilistic Anchor Assignment with IoU Prediction for Object Detection"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.paa import paa
from ..recipe import Optimizer, Schedule
from .common import COCO, R50, R101, RANGE_SCALE_FLIP, THREE_X, TWO_X, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01))
MULTI_SCALE = replace(BASE, schedule=THREE_X, train_transforms=RANGE_SCALE_FLIP)

RECIPES = [
    row("paa_r50_fpn_1x_coco", paa, R50, BASE),
    row("paa_r50_fpn_1.5x_coco", paa, R50, BASE, schedule=Schedule(epochs=18, drops=(12, 16))),
    row("paa_r50_fpn_2x_coco", paa, R50, BASE, schedule=TWO_X),
    row("paa_r50_fpn_mstrain_3x_coco", paa, R50, MULTI_SCALE),
    row("paa_r101_fpn_1x_coco", paa, R101, BASE),
    row("paa_r101_fpn_2x_coco", paa, R101, BASE, schedule=TWO_X),
    row("paa_r101_fpn_mstrain_3x_coco", paa, R101, MULTI_SCALE),
]
