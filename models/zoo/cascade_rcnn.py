"""Cascade R-CNN and Cascade Mask R-CNN: the rows of their document."""

from __future__ import annotations

from dataclasses import replace

from ..methods.cascade_rcnn import cascade_mask_rcnn, cascade_rcnn
from .common import (
    COCO,
    R50,
    R50_CAFFE,
    R101,
    R101_CAFFE,
    TWENTY_EPOCHS,
    X101_32X4D,
    X101_64X4D,
    row,
)

MASKS = replace(COCO, needs_masks=True)
BODIES = {"r50": R50, "r101": R101, "x101_32x4d": X101_32X4D, "x101_64x4d": X101_64X4D}
METHODS = (("cascade_rcnn", cascade_rcnn, COCO), ("cascade_mask_rcnn", cascade_mask_rcnn, MASKS))

RECIPES = []
for prefix, method, base in METHODS:
    RECIPES += [
        row(f"{prefix}_r50_caffe_fpn_1x_coco", method, R50_CAFFE, base),
        row(f"{prefix}_r101_caffe_fpn_1x_coco", method, R101_CAFFE, base),
    ]
    for body_name, body in BODIES.items():
        RECIPES += [
            row(f"{prefix}_{body_name}_fpn_1x_coco", method, body, base),
            row(f"{prefix}_{body_name}_fpn_20e_coco", method, body, base, schedule=TWENTY_EPOCHS),
        ]
