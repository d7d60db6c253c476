"""DETR: the row of "End-to-End Object Detection with Transformers"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import Flip, OneOf, RandomCrop, Resize, Transform
from ..layers import FROZEN_BN
from ..methods.detr import detr
from ..recipe import Optimizer, ParameterRule, Schedule
from .common import COCO, R50, row

SIZES = tuple((1333, short) for short in range(480, 801, 32))


def crop_policy(long_edge: int = 1333) -> tuple[Transform, ...]:
    """Resizing, half of the time after a random crop of a resized image whose long edge is at most ``long_edge``."""
    before_crop = Resize(tuple((long_edge, short) for short in (400, 500, 600)))
    crop = RandomCrop((384, 600), "absolute_range", allow_empty=True)
    return Flip(), OneOf(((Resize(SIZES),), (before_crop, crop, Resize(SIZES))))


BASE = replace(
    COCO,
    preprocessing=replace(COCO.preprocessing, divisor=1),
    train_transforms=crop_policy(),
    optimizer=Optimizer(
        "adamw", lr=1e-4, weight_decay=1e-4, rules=(ParameterRule("backbone", lr_factor=0.1),), clip_norm=0.1
    ),
    schedule=Schedule(epochs=150, drops=(100,), warmup_steps=0),
)

RECIPES = [row("detr_r50_8x2_150e_coco", detr, R50.built_with(norm=FROZEN_BN, out_stages=(3,)), BASE)]
