"""Guided Anchoring: the rows of "Region Proposal by Guided Anchoring"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.guided_anchoring import ga_faster_rcnn, ga_retinanet, ga_rpn
from ..recipe import Optimizer
from .common import COCO, R50_CAFFE, R101_CAFFE, X101_32X4D, X101_64X4D, row

CLIPPED = replace(COCO, optimizer=Optimizer(clip_norm=35.0))
RETINA = replace(COCO, optimizer=Optimizer(lr=0.01, clip_norm=35.0))
BODIES = {"r50_caffe": R50_CAFFE, "r101_caffe": R101_CAFFE, "x101_32x4d": X101_32X4D, "x101_64x4d": X101_64X4D}

RECIPES = [
    row(f"{prefix}_{body_name}_fpn_1x_coco", method, body, base)
    for prefix, method, base in (
        ("ga_rpn", ga_rpn, CLIPPED),
        ("ga_faster", ga_faster_rcnn, CLIPPED),
        ("ga_retinanet", ga_retinanet, RETINA),
    )
    for body_name, body in BODIES.items()
]
