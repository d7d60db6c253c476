"""AutoAssign: the row of "AutoAssign: Differentiable Label Assignment for Dense Object Detection"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.autoassign import autoassign
from ..recipe import Optimizer, Schedule
from .common import COCO, DETECTRON_MEAN, R50_CAFFE, row

BODY = replace(R50_CAFFE, mean=DETECTRON_MEAN)
BASE = replace(
    COCO,
    optimizer=Optimizer(lr=0.01, norm_decay_factor=0.0),
    schedule=Schedule(epochs=12, drops=(8, 11), warmup_steps=1000),
)

RECIPES = [row("autoassign_r50_fpn_8x2_1x_coco", autoassign, BODY, BASE)]
