"""Augmentation by albumentations: the row of "Albu Example"."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import Albumentations, PadToMultiple, Resize
from ..methods.mask_rcnn import mask_rcnn
from .common import COCO, R50, row

BASE = replace(
    COCO,
    needs_masks=True,
    train_transforms=(Resize(), PadToMultiple(32), Albumentations.published()),
)

RECIPES = [row("mask_rcnn_r50_fpn_albu_1x_coco", mask_rcnn, R50, BASE)]
