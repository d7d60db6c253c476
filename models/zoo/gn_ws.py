"""Group normalization with standardized weights: the rows of "Weight Standardization"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..layers import GN
from ..layers.weight_standardization import WSConv2d
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..necks.fpn import FPN
from ..recipe import Schedule
from ..roi.box_head import BoxHead
from ..roi.mask_head import FCNMaskHead
from .common import COCO, R50, R101, TWO_X, X50_32X4D, X101_32X4D, row

MASKS = replace(COCO, needs_masks=True)
LATE_DROPS = Schedule(epochs=24, drops=(20, 23))
NECK = partial(FPN, norm=GN, conv=WSConv2d)
BBOX_HEAD = partial(BoxHead, convs=4, fcs=1, norm=GN, conv=WSConv2d)
FASTER = partial(faster_rcnn, neck=NECK, bbox_head=BBOX_HEAD)
MASK = partial(mask_rcnn, neck=NECK, bbox_head=BBOX_HEAD, mask_head=partial(FCNMaskHead, norm=GN, conv=WSConv2d))
BODIES = {
    "r50": replace(R50.built_with(norm=GN, conv=WSConv2d), weights="open-mmlab://jhu/resnet50_gn_ws"),
    "r101": replace(R101.built_with(norm=GN, conv=WSConv2d), weights="open-mmlab://jhu/resnet101_gn_ws"),
    "x50_32x4d": replace(
        X50_32X4D.built_with(norm=GN, conv=WSConv2d), weights="open-mmlab://jhu/resnext50_32x4d_gn_ws"
    ),
    "x101_32x4d": replace(
        X101_32X4D.built_with(norm=GN, conv=WSConv2d), weights="open-mmlab://jhu/resnext101_32x4d_gn_ws"
    ),
}

RECIPES = []
for name, body in BODIES.items():
    RECIPES += [
        row(f"faster_rcnn_{name}_fpn_gn_ws-all_1x_coco", FASTER, body, COCO),
        row(f"mask_rcnn_{name}_fpn_gn_ws-all_2x_coco", MASK, body, MASKS, schedule=TWO_X),
        row(f"mask_rcnn_{name}_fpn_gn_ws-all_20_23_24e_coco", MASK, body, MASKS, schedule=LATE_DROPS),
    ]
