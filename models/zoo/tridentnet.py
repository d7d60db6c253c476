"""TridentNet: the rows of "Scale-Aware Trident Networks for Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.trident_resnet import TridentResNet
from ..layers import FROZEN_BN
from ..methods.tridentnet import tridentnet
from .common import COCO, MULTI_SCALE_FLIP, R50_CAFFE, THREE_X, row

BODY = replace(R50_CAFFE, build=partial(TridentResNet, 50, style="caffe", norm=FROZEN_BN))
MULTI_SCALE = replace(COCO, train_transforms=MULTI_SCALE_FLIP)

RECIPES = [
    row("tridentnet_r50_caffe_1x_coco", tridentnet, BODY, COCO),
    row("tridentnet_r50_caffe_mstrain_1x_coco", tridentnet, BODY, MULTI_SCALE),
    row("tridentnet_r50_caffe_mstrain_3x_coco", tridentnet, BODY, MULTI_SCALE, schedule=THREE_X),
]
