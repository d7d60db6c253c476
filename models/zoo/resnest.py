"""ResNeSt backbones: the rows of "ResNeSt: Split-Attention Networks"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.resnest import resnest
from ..layers import BN
from ..methods.cascade_rcnn import cascade_mask_rcnn, cascade_rcnn
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..roi.box_head import BoxHead
from ..roi.mask_head import FCNMaskHead
from .common import COCO, MULTI_SCALE_FLIP, RANGE_SCALE_FLIP, Body, row

MEAN = (123.68, 116.779, 103.939)
STD = (58.393, 57.12, 57.375)
BOXES = replace(
    COCO,
    sync_batch_norm=True,
    train_transforms=RANGE_SCALE_FLIP,
)
MASKS = replace(BOXES, needs_masks=True, train_transforms=MULTI_SCALE_FLIP)
BBOX_HEAD = partial(BoxHead, convs=4, fcs=1, norm=BN)
MASK_HEAD = partial(FCNMaskHead, norm=BN)

RECIPES = []
for depth in (50, 101):
    body = Body(partial(resnest, depth), f"open-mmlab://resnest{depth}", mean=MEAN, std=STD)
    boxes, masks = (
        f"_s{depth}_fpn_syncbn-backbone+head_mstrain-range_1x",
        f"_s{depth}_fpn_syncbn-backbone+head_mstrain_1x",
    )
    RECIPES += [
        row(f"faster_rcnn{boxes}_coco", partial(faster_rcnn, bbox_head=BBOX_HEAD), body, BOXES),
        row(f"mask_rcnn{masks}_coco", partial(mask_rcnn, bbox_head=BBOX_HEAD, mask_head=MASK_HEAD), body, MASKS),
        row(f"cascade_rcnn{boxes}_coco", partial(cascade_rcnn, bbox_head=BBOX_HEAD), body, BOXES),
        row(
            f"cascade_mask_rcnn{masks}_coco",
            partial(cascade_mask_rcnn, bbox_head=BBOX_HEAD, mask_head=MASK_HEAD),
            body,
            MASKS,
        ),
    ]
