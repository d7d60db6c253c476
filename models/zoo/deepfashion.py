"""Mask R-CNN on DeepFashion: the row of "DeepFashion"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import Flip, Preprocessing, Resize
from ..methods.mask_rcnn import mask_rcnn
from ..recipe import Schedule
from .common import COCO, R50, row

BASE = replace(
    COCO,
    dataset="deepfashion",
    num_classes=15,
    needs_masks=True,
    preprocessing=Preprocessing(size=(750, 1101)),
    train_transforms=(Resize(((750, 1101),)), Flip()),
    schedule=Schedule(epochs=15, drops=(8, 11)),
)

RECIPES = [row("mask_rcnn_r50_fpn_15e_deepfashion", mask_rcnn, R50, BASE)]
