"""YOLOF: the row of "You Only Look One-level Feature"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import Flip, Resize, Shift
from ..methods.yolof import yolof
from ..recipe import Optimizer, ParameterRule, Schedule
from .common import CAFFE_MEAN, COCO, R50_DETECTRON, row

BODY = replace(R50_DETECTRON, mean=CAFFE_MEAN)
BASE = replace(
    COCO,
    train_transforms=(Resize(), Flip(), Shift()),
    images_per_device=8,
    optimizer=Optimizer(lr=0.12, norm_decay_factor=0.0, rules=(ParameterRule("backbone", lr_factor=1 / 3),)),
    schedule=Schedule(epochs=12, drops=(8, 11), warmup_steps=1500, warmup_factor=0.00066667),
)

RECIPES = [row("yolof_r50_c5_8x8_1x_coco", yolof, BODY, BASE)]
