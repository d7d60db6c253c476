"""FCOS: the rows of "FCOS: Fully Convolutional One-Stage Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Flip, Resize
from ..backbones.resnet import Deform
from ..dense.towers import tower
from ..layers import GN, ModulatedDeformConv2d
from ..losses import GIoULoss
from ..methods.fcos import fcos
from ..recipe import Optimizer
from .common import COCO, ONE_X, R50_CAFFE, R50_DETECTRON, R101_DETECTRON, TWO_X, X101_64X4D, row

R50_DEFORMED = R50_CAFFE.built_with(deform=Deform(ModulatedDeformConv2d))

OPTIMIZER = Optimizer(lr=0.01, bias_lr_factor=2.0, bias_decay_factor=0.0, clip_norm=35)
BASE = replace(COCO, optimizer=OPTIMIZER, schedule=replace(ONE_X, warmup="constant", warmup_factor=1 / 3))
LONG = replace(
    BASE,
    schedule=replace(TWO_X, warmup="constant", warmup_factor=1 / 3),
    train_transforms=(Resize(((1333, 640), (1333, 800))), Flip()),
)
CENTRED = replace(COCO, optimizer=replace(OPTIMIZER, clip_norm=None), schedule=replace(ONE_X, warmup_factor=1 / 3))

centred_fcos = partial(
    fcos,
    normalized=True,
    center_radius=1.5,
    centerness_on_reg=True,
    box_loss=GIoULoss(),
    nms_threshold=0.6,
    build_tower=partial(tower, 256, 256, 4, GN, bias=True),
)
deformed_fcos = partial(
    centred_fcos, build_tower=partial(tower, 256, 256, 4, GN, bias=True, last_conv=ModulatedDeformConv2d)
)

RECIPES = [
    row("fcos_r50_caffe_fpn_gn-head_1x_coco", fcos, R50_DETECTRON, BASE),
    row("fcos_r101_caffe_fpn_gn-head_1x_coco", fcos, R101_DETECTRON, BASE),
    row("fcos_r50_caffe_fpn_gn-head_mstrain_640-800_2x_coco", fcos, R50_DETECTRON, LONG),
    row("fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco", fcos, R101_DETECTRON, LONG),
    row("fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco", fcos, X101_64X4D, LONG),
    row("fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco", centred_fcos, R50_CAFFE, CENTRED),
    row(
        "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_dcn_1x_coco", deformed_fcos, R50_DEFORMED, CENTRED
    ),
]
