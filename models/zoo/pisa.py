"""PISA: the rows of "Prime Sample Attention in Object Detection" that stand on a ResNet."""

from __future__ import annotations

from dataclasses import replace

from ..methods.pisa import pisa_faster_rcnn, pisa_mask_rcnn, pisa_retinanet
from ..recipe import Optimizer
from .common import COCO, R50, X101_32X4D, row

RETINA = replace(COCO, optimizer=Optimizer(lr=0.01))

RECIPES = [
    row("pisa_faster_rcnn_r50_fpn_1x_coco", pisa_faster_rcnn, R50, COCO),
    row("pisa_faster_rcnn_x101_32x4d_fpn_1x_coco", pisa_faster_rcnn, X101_32X4D, COCO),
    row("pisa_mask_rcnn_r50_fpn_1x_coco", pisa_mask_rcnn, R50, replace(COCO, needs_masks=True)),
    row("pisa_retinanet_r50_fpn_1x_coco", pisa_retinanet, R50, RETINA),
    row("pisa_retinanet_x101_32x4d_fpn_1x_coco", pisa_retinanet, X101_32X4D, RETINA),
]
