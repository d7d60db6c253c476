"""The first generation of the zoo: the two-stage and RetinaNet rows of "Legacy Configs in MMDetection V1.x"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.legacy import legacy_cascade_mask_rcnn, legacy_faster_rcnn, legacy_mask_rcnn, legacy_retinanet
from .common import COCO, R50, R50_DETECTRON, row

MASKS = replace(COCO, needs_masks=True)

RECIPES = [
    row("faster_rcnn_r50_fpn_1x_coco_v1", legacy_faster_rcnn, R50, COCO),
    row("mask_rcnn_r50_fpn_1x_coco_v1", legacy_mask_rcnn, R50, MASKS),
    row("cascade_mask_rcnn_r50_fpn_1x_coco_v1", legacy_cascade_mask_rcnn, R50, MASKS),
    row("retinanet_r50_fpn_1x_coco_v1", legacy_retinanet, R50, COCO),
    row("retinanet_r50_caffe_1x_coco_v1", legacy_retinanet, R50_DETECTRON, COCO),
]
