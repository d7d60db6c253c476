"""Deformable convolutions and deformable RoI pooling: the rows of "Deformable Convolutional Networks"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.resnet import Deform
from ..layers import ModulatedDeformConv2d
from ..methods.cascade_rcnn import cascade_mask_rcnn, cascade_rcnn
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..roi.deform_pool import deform_pool_extractor
from .common import COCO, DCN, DCNV2, R50, R101, X101_32X4D, row

MASKS = replace(COCO, needs_masks=True)
DCNV2_GROUP4 = Deform(partial(ModulatedDeformConv2d, offset_groups=4))

RECIPES = [
    row("faster_rcnn_r50_fpn_dconv_c3-c5_1x_coco", faster_rcnn, R50.built_with(deform=DCN), COCO),
    row("faster_rcnn_r50_fpn_mdconv_c3-c5_1x_coco", faster_rcnn, R50.built_with(deform=DCNV2), COCO),
    row("faster_rcnn_r50_fpn_mdconv_c3-c5_group4_1x_coco", faster_rcnn, R50.built_with(deform=DCNV2_GROUP4), COCO),
    row(
        "faster_rcnn_r50_fpn_dpool_1x_coco",
        partial(faster_rcnn, bbox_roi_extractor=deform_pool_extractor),
        R50,
        COCO,
    ),
    row(
        "faster_rcnn_r50_fpn_mdpool_1x_coco",
        partial(faster_rcnn, bbox_roi_extractor=partial(deform_pool_extractor, modulated=True)),
        R50,
        COCO,
    ),
    row("faster_rcnn_r101_fpn_dconv_c3-c5_1x_coco", faster_rcnn, R101.built_with(deform=DCN), COCO),
    row("faster_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x_coco", faster_rcnn, X101_32X4D.built_with(deform=DCN), COCO),
    row("mask_rcnn_r50_fpn_dconv_c3-c5_1x_coco", mask_rcnn, R50.built_with(deform=DCN), MASKS),
    row("mask_rcnn_r50_fpn_mdconv_c3-c5_1x_coco", mask_rcnn, R50.built_with(deform=DCNV2), MASKS),
    row("mask_rcnn_r101_fpn_dconv_c3-c5_1x_coco", mask_rcnn, R101.built_with(deform=DCN), MASKS),
    row("cascade_rcnn_r50_fpn_dconv_c3-c5_1x_coco", cascade_rcnn, R50.built_with(deform=DCN), COCO),
    row("cascade_rcnn_r101_fpn_dconv_c3-c5_1x_coco", cascade_rcnn, R101.built_with(deform=DCN), COCO),
    row("cascade_mask_rcnn_r50_fpn_dconv_c3-c5_1x_coco", cascade_mask_rcnn, R50.built_with(deform=DCN), MASKS),
    row("cascade_mask_rcnn_r101_fpn_dconv_c3-c5_1x_coco", cascade_mask_rcnn, R101.built_with(deform=DCN), MASKS),
    row(
        "cascade_mask_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x_coco",
        cascade_mask_rcnn,
        X101_32X4D.built_with(deform=DCN),
        MASKS,
    ),
]
