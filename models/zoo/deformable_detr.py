"""Deformable DETR: the rows of "Deformable DETR: Deformable Transformers for End-to-End Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..layers import FROZEN_BN
from ..methods.deformable_detr import deformable_detr
from ..recipe import Optimizer, ParameterRule, Schedule
from .common import COCO, R50, row
from .detr import crop_policy

BODY = R50.built_with(norm=FROZEN_BN, out_stages=(1, 2, 3))
BASE = replace(
    COCO,
    preprocessing=replace(COCO.preprocessing, divisor=1),
    # The image is resized by its short edge alone before it is cropped.
    train_transforms=crop_policy(long_edge=4200),
    devices=16,
    optimizer=Optimizer(
        "adamw",
        lr=2e-4,
        weight_decay=1e-4,
        rules=tuple(
            ParameterRule(part, lr_factor=0.1) for part in ("backbone", "sampling_offsets", "reference_points")
        ),
        clip_norm=0.1,
    ),
    schedule=Schedule(epochs=50, drops=(40,), warmup_steps=0),
)

RECIPES = [
    row("deformable_detr_r50_16x2_50e_coco", deformable_detr, BODY, BASE),
    row("deformable_detr_refine_r50_16x2_50e_coco", partial(deformable_detr, refine=True), BODY, BASE),
    row(
        "deformable_detr_twostage_refine_r50_16x2_50e_coco",
        partial(deformable_detr, refine=True, two_stage=True),
        BODY,
        BASE,
    ),
]
