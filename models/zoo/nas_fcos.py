"""NAS-FCOS: the rows of "NAS-FCOS: Fast Neural Architecture Search for Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..layers import Norm
from ..methods.nas_fcos import nas_fcos
from ..recipe import Optimizer
from .common import COCO, R50_CAFFE, row

BODY = R50_CAFFE.built_with(norm=Norm("bn", trainable=False, eps=0.0))
BASE = replace(
    COCO, images_per_device=4, devices=4, optimizer=Optimizer(lr=0.01, bias_lr_factor=2.0, bias_decay_factor=0.0)
)

RECIPES = [
    row("nas_fcos_nashead_r50_caffe_fpn_gn-head_4x4_1x_coco", nas_fcos, BODY, BASE),
    row("nas_fcos_fcoshead_r50_caffe_fpn_gn-head_4x4_1x_coco", partial(nas_fcos, searched_head=False), BODY, BASE),
]
