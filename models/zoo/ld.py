"""LD: the rows of "Localization Distillation for Object Detection"."""

from __future__ import annotations

from functools import partial

from ..methods.ld import ld
from . import find_recipe
from .common import R18, R34, R50, R101, row
from .gfl import BASE, MULTI_SCALE

by_r101 = partial(ld, teacher_recipe=partial(find_recipe, "gfl_r101_fpn_mstrain_2x_coco"))
by_deformed_r101 = partial(ld, teacher_recipe=partial(find_recipe, "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco"))

RECIPES = [
    row("ld_r18_gflv1_r101_fpn_coco_1x", by_r101, R18, BASE),
    row("ld_r34_gflv1_r101_fpn_coco_1x", by_r101, R34, BASE),
    row("ld_r50_gflv1_r101_fpn_coco_1x", by_r101, R50, BASE),
    row("ld_r101_gflv1_r101dcn_fpn_coco_1x", by_deformed_r101, R101, MULTI_SCALE),
]
