"""SCNet: the rows of its document."""

from __future__ import annotations

from dataclasses import replace

from ..methods.scnet import scnet
from .common import COCO, R50, R101, TWENTY_EPOCHS, X101_64X4D, row

BASE = replace(COCO, needs_masks=True, needs_semantic=True)
LONG = replace(BASE, schedule=TWENTY_EPOCHS)

RECIPES = [
    row("scnet_r50_fpn_1x_coco", scnet, R50, BASE),
    row("scnet_r50_fpn_20e_coco", scnet, R50, LONG),
    row("scnet_r101_fpn_20e_coco", scnet, R101, LONG),
    row("scnet_x101_64x4d_fpn_20e_coco", scnet, X101_64X4D, LONG),
]
