"""GFL: the rows of "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
Detection"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import Flip, Resize
from ..backbones.resnet import Deform
from ..methods.gfl import gfl
from ..recipe import Optimizer
from .common import COCO, R50, R101, TWO_X, X101_32X4D, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01))
MULTI_SCALE = replace(BASE, schedule=TWO_X, train_transforms=(Resize(((1333, 480), (1333, 800)), draw="range"), Flip()))
DEFORMED_R101 = R101.built_with(deform=Deform())
DEFORMED_X101 = X101_32X4D.built_with(deform=Deform(stages=(False, False, True, True)))

RECIPES = [
    row("gfl_r50_fpn_1x_coco", gfl, R50, BASE),
    row("gfl_r50_fpn_mstrain_2x_coco", gfl, R50, MULTI_SCALE),
    row("gfl_r101_fpn_mstrain_2x_coco", gfl, R101, MULTI_SCALE),
    row("gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco", gfl, DEFORMED_R101, MULTI_SCALE),
    row("gfl_x101_32x4d_fpn_mstrain_2x_coco", gfl, X101_32X4D, MULTI_SCALE),
    row("gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco", gfl, DEFORMED_X101, MULTI_SCALE),
]
