"""Pyramid grids: the rows of "Feature Pyramid Grids"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..layers import BN
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..methods.nas_fpn import retinanet_sep_bn
from ..methods.rpn import RPNHead
from ..necks.fpg import FPG
from ..roi.box_head import BoxHead
from ..roi.mask_head import FCNMaskHead
from .common import CROP_640, R50, row

BODY = R50.built_with(norm_eval=False)
RETINA = replace(CROP_640, preprocessing=replace(CROP_640.preprocessing, divisor=128))

RECIPES = []
for name, channels in (("fpg", 256), ("fpg-chn128", 128)):
    parts = {
        "neck": partial(FPG, out_channels=channels),
        "rpn_head": partial(RPNHead, in_channels=channels),
        "bbox_head": partial(BoxHead, in_channels=channels),
    }
    mask_head = partial(FCNMaskHead, in_channels=channels, norm=BN)
    retina_neck = partial(FPG, out_channels=channels, start=1, extra_convs=True)
    RECIPES += [
        row(f"faster_rcnn_r50_{name}_crop640_50e_coco", partial(faster_rcnn, **parts), BODY, CROP_640),
        row(
            f"mask_rcnn_r50_{name}_crop640_50e_coco",
            partial(mask_rcnn, **parts, mask_head=mask_head),
            BODY,
            CROP_640,
            needs_masks=True,
        ),
        row(f"retinanet_r50_{name}_crop640_50e_coco", partial(retinanet_sep_bn, neck=retina_neck), BODY, RETINA),
    ]
