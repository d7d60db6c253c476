"""Content-aware upsampling: the rows of "CARAFE: Content-Aware ReAssembly of FEatures"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Preprocessing
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..necks.fpn_carafe import FPNCarafe
from ..roi.mask_head import FCNMaskHead, carafe_upsample
from .common import COCO, R50, row

BASE = replace(COCO, preprocessing=Preprocessing(divisor=64))

RECIPES = [
    row("faster_rcnn_r50_fpn_carafe_1x_coco", partial(faster_rcnn, neck=FPNCarafe), R50, BASE),
    row(
        "mask_rcnn_r50_fpn_carafe_1x_coco",
        partial(mask_rcnn, neck=FPNCarafe, mask_head=partial(FCNMaskHead, upsample=carafe_upsample)),
        R50,
        BASE,
        needs_masks=True,
    ),
]
