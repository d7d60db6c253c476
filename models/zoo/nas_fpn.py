"""Searched pyramids: the rows of "NAS-FPN: Learning Scalable Feature Pyramid Architecture for Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..layers import BN
from ..methods.nas_fpn import retinanet_sep_bn
from ..necks.fpn import FPN
from ..necks.nas_fpn import NASFPN
from .common import CROP_640, R50, row

BODY = R50.built_with(norm_eval=False)
NECK = partial(FPN, start=1, extra="input", relu_before_extra=True, norm=BN, lateral_norm=False)
BASE = CROP_640
NAS = replace(BASE, preprocessing=replace(BASE.preprocessing, divisor=128))

RECIPES = [
    row("retinanet_r50_fpn_crop640_50e_coco", partial(retinanet_sep_bn, neck=NECK), BODY, BASE),
    row("retinanet_r50_nasfpn_crop640_50e_coco", partial(retinanet_sep_bn, neck=NASFPN), BODY, NAS),
]
