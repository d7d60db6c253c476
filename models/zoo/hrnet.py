"""HRNet backbones: the rows of "High-resolution networks (HRNets) for object detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.hrnet import HRNet
from ..methods.cascade_rcnn import cascade_mask_rcnn, cascade_rcnn
from ..methods.faster_rcnn import faster_rcnn
from ..methods.fcos import fcos
from ..methods.htc import htc
from ..methods.mask_rcnn import mask_rcnn
from ..necks.hrfpn import HRFPN
from . import fcos as fcos_rows
from . import htc as htc_rows
from .common import BGR_MEAN, BGR_STD, COCO, TWENTY_EPOCHS, TWO_X, Body, row

MASKS = replace(COCO, needs_masks=True)
FCOS_1X = replace(fcos_rows.BASE, images_per_device=4, devices=4)
FCOS_2X = replace(FCOS_1X, schedule=fcos_rows.LONG.schedule)
FCOS_MULTI_SCALE = replace(FCOS_2X, train_transforms=fcos_rows.LONG.train_transforms)

RECIPES = []
for width in (18, 32, 40):
    name = f"hrnetv2p_w{width}"
    body = Body(partial(HRNet, width), f"open-mmlab://msra/hrnetv2_w{width}")
    for prefix, method, base in (("faster_rcnn", faster_rcnn, COCO), ("mask_rcnn", mask_rcnn, MASKS)):
        RECIPES += [
            row(f"{prefix}_{name}_1x_coco", partial(method, neck=HRFPN), body, base),
            row(f"{prefix}_{name}_2x_coco", partial(method, neck=HRFPN), body, base, schedule=TWO_X),
        ]
    for prefix, method, base in (
        ("cascade_rcnn", cascade_rcnn, COCO),
        ("cascade_mask_rcnn", cascade_mask_rcnn, MASKS),
    ):
        RECIPES.append(
            row(f"{prefix}_{name}_20e_coco", partial(method, neck=HRFPN), body, base, schedule=TWENTY_EPOCHS)
        )
    RECIPES.append(row(f"htc_{name}_20e_coco", partial(htc, neck=HRFPN), body, htc_rows.LONG))
    bgr = replace(body, mean=BGR_MEAN, std=BGR_STD, channels="bgr")
    method = partial(fcos, neck=partial(HRFPN, stride=2))
    if width != 40:
        RECIPES += [
            row(f"fcos_{name}_gn-head_4x4_1x_coco", method, bgr, FCOS_1X),
            row(f"fcos_{name}_gn-head_4x4_2x_coco", method, bgr, FCOS_2X),
        ]
    RECIPES.append(row(f"fcos_{name}_gn-head_mstrain_640-800_4x4_2x_coco", method, bgr, FCOS_MULTI_SCALE))
