"""PISA: the rows of "Prime Sample Attention in Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..methods.pisa import pisa_faster_rcnn, pisa_mask_rcnn, pisa_retinanet, pisa_ssd
from ..methods.ssd import SSD512
from ..recipe import Optimizer
from .common import COCO, R50, X101_32X4D, row
from .ssd import BASE_300, BASE_512, OPTIMIZER, VGG16

RETINA = replace(COCO, optimizer=Optimizer(lr=0.01))

CLIPPED = replace(OPTIMIZER, clip_norm=35.0)

RECIPES = [
    row("pisa_faster_rcnn_r50_fpn_1x_coco", pisa_faster_rcnn, R50, COCO),
    row("pisa_faster_rcnn_x101_32x4d_fpn_1x_coco", pisa_faster_rcnn, X101_32X4D, COCO),
    row("pisa_mask_rcnn_r50_fpn_1x_coco", pisa_mask_rcnn, R50, replace(COCO, needs_masks=True)),
    row("pisa_retinanet_r50_fpn_1x_coco", pisa_retinanet, R50, RETINA),
    row("pisa_retinanet_x101_32x4d_fpn_1x_coco", pisa_retinanet, X101_32X4D, RETINA),
    row("pisa_ssd300_coco", pisa_ssd, VGG16, BASE_300, optimizer=CLIPPED),
    row("pisa_ssd512_coco", partial(pisa_ssd, layout=SSD512), VGG16, BASE_512, optimizer=CLIPPED),
]
