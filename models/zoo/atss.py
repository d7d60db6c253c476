"""ATSS: the rows of "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
Selection"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.atss import atss
from ..recipe import Optimizer
from .common import COCO, R50, R101, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01))

RECIPES = [
    row("atss_r50_fpn_1x_coco", atss, R50, BASE),
    row("atss_r101_fpn_1x_coco", atss, R101, BASE),
]
