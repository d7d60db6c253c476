"""Detectors trained without a pretrained backbone: the rows of "Rethinking ImageNet Pre-training"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..layers import GN
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..necks.fpn import FPN
from ..recipe import Optimizer, Schedule
from ..roi.box_head import BoxHead
from ..roi.mask_head import FCNMaskHead
from .common import COCO, R50, row

BASE = replace(
    COCO,
    optimizer=Optimizer(norm_decay_factor=0.0),
    schedule=Schedule(epochs=73, drops=(65, 71), warmup_factor=0.1),
)
BODY = replace(R50.built_with(norm=GN, frozen_stages=-1), weights=None)
NECK = partial(FPN, norm=GN)
BBOX_HEAD = partial(BoxHead, convs=4, fcs=1, norm=GN)

RECIPES = [
    row(
        "faster_rcnn_r50_fpn_gn-all_scratch_6x_coco",
        partial(faster_rcnn, neck=NECK, bbox_head=BBOX_HEAD),
        BODY,
        BASE,
    ),
    row(
        "mask_rcnn_r50_fpn_gn-all_scratch_6x_coco",
        partial(mask_rcnn, neck=NECK, bbox_head=BBOX_HEAD, mask_head=partial(FCNMaskHead, norm=GN)),
        BODY,
        BASE,
        needs_masks=True,
    ),
]
