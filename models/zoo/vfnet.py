"""VarifocalNet: the rows of "VarifocalNet: An IoU-aware Dense Object Detector"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Flip, Resize
from ..backbones.resnet import Deform
from ..layers import ModulatedDeformConv2d
from ..methods.vfnet import vfnet
from ..recipe import Optimizer
from .common import COCO, ONE_X, R50, R101, TWO_X, X101_32X4D, X101_64X4D, row

BASE = replace(
    COCO,
    optimizer=Optimizer(lr=0.01, bias_lr_factor=2.0, bias_decay_factor=0.0),
    schedule=replace(ONE_X, warmup_factor=0.1),
)
MULTI_SCALE = replace(
    BASE,
    schedule=replace(TWO_X, warmup_factor=0.1),
    train_transforms=(Resize(((1333, 480), (1333, 960)), draw="range"), Flip()),
)
DEFORM = Deform(ModulatedDeformConv2d)

deformed_vfnet = partial(vfnet, last_conv=ModulatedDeformConv2d)

RECIPES = [
    row("vfnet_r50_fpn_1x_coco", vfnet, R50, BASE),
    row("vfnet_r50_fpn_mstrain_2x_coco", vfnet, R50, MULTI_SCALE),
    row("vfnet_r50_fpn_mdconv_c3-c5_mstrain_2x_coco", deformed_vfnet, R50.built_with(deform=DEFORM), MULTI_SCALE),
    row("vfnet_r101_fpn_1x_coco", vfnet, R101, BASE),
    row("vfnet_r101_fpn_mstrain_2x_coco", vfnet, R101, MULTI_SCALE),
    row("vfnet_r101_fpn_mdconv_c3-c5_mstrain_2x_coco", deformed_vfnet, R101.built_with(deform=DEFORM), MULTI_SCALE),
    row(
        "vfnet_x101_32x4d_fpn_mdconv_c3-c5_mstrain_2x_coco",
        deformed_vfnet,
        X101_32X4D.built_with(deform=DEFORM),
        MULTI_SCALE,
    ),
    row(
        "vfnet_x101_64x4d_fpn_mdconv_c3-c5_mstrain_2x_coco",
        deformed_vfnet,
        X101_64X4D.built_with(deform=DEFORM),
        MULTI_SCALE,
    ),
]
