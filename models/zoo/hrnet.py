"""HRNet backbones: the two-stage rows of "High-resolution networks (HRNets) for object detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.hrnet import HRNet
from ..methods.cascade_rcnn import cascade_mask_rcnn, cascade_rcnn
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..necks.hrfpn import HRFPN
from .common import COCO, TWENTY_EPOCHS, TWO_X, Body, row

MASKS = replace(COCO, needs_masks=True)

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
