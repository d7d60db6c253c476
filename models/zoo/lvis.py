"""Mask R-CNN on LVIS: the rows of "LVIS dataset", with repeat-factor sampling and 300 detections an image."""

from __future__ import annotations

from dataclasses import replace

from ..methods.mask_rcnn import mask_rcnn
from ..recipe import Sampling
from ..settings import RoITest
from .common import COCO, MULTI_SCALE_FLIP, ONE_X, R50, R101, TWO_X, X101_32X4D, X101_64X4D, row

BASE = replace(COCO, needs_masks=True, sampling=Sampling(repeat_factor=1e-3), train_transforms=MULTI_SCALE_FLIP)
BODIES = {"r50": R50, "r101": R101, "x101_32x4d": X101_32X4D, "x101_64x4d": X101_64X4D}


def lvis_mask_rcnn(num_classes: int, *, backbone):
    """Mask R-CNN that keeps many detections of low score, for a protocol with many classes."""
    return mask_rcnn(num_classes, backbone=backbone, test=RoITest(score_threshold=1e-4, max_per_image=300))


RECIPES = []
for version, classes, length, schedule in (("v0.5", 1230, "2x", TWO_X), ("v1", 1203, "1x", ONE_X)):
    base = replace(BASE, dataset=f"lvis_{version}", num_classes=classes, schedule=schedule)
    RECIPES += [
        row(f"mask_rcnn_{name}_fpn_sample1e-3_mstrain_{length}_lvis_{version}", lvis_mask_rcnn, body, base)
        for name, body in BODIES.items()
    ]
