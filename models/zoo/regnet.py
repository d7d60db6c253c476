"""RegNetX backbones: the rows of "Designing Network Design Spaces"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.regnet import RegNet
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..methods.retinanet import retinanet
from ..recipe import Optimizer
from .common import BGR_MEAN, BGR_STD, COCO, DCNV2, LONG, MULTI_SCALE_FLIP, THREE_X, TWO_X, Body, row

OPTIMIZER = Optimizer(weight_decay=5e-5)
CLIPPED = replace(OPTIMIZER, clip_norm=35.0)
BASE = replace(COCO, optimizer=OPTIMIZER)
MASKS = replace(BASE, needs_masks=True)


def body(name: str) -> Body:
    """A RegNetX, read in BGR order."""
    return Body(partial(RegNet, name), f"open-mmlab://{name}", mean=BGR_MEAN, std=BGR_STD, channels="bgr")


X3_2GF = body("regnetx_3.2gf")

RECIPES = [
    row("mask_rcnn_regnetx-3.2GF_fpn_1x_coco", mask_rcnn, X3_2GF, MASKS),
    row("mask_rcnn_regnetx-4GF_fpn_1x_coco", mask_rcnn, body("regnetx_4.0gf"), MASKS),
    row("mask_rcnn_regnetx-6.4GF_fpn_1x_coco", mask_rcnn, body("regnetx_6.4gf"), MASKS),
    row("mask_rcnn_regnetx-8GF_fpn_1x_coco", mask_rcnn, body("regnetx_8.0gf"), MASKS),
    row("mask_rcnn_regnetx-12GF_fpn_1x_coco", mask_rcnn, body("regnetx_12gf"), MASKS),
    row("mask_rcnn_regnetx-3.2GF_fpn_mdconv_c3-c5_1x_coco", mask_rcnn, X3_2GF.built_with(deform=DCNV2), MASKS),
    row("faster_rcnn_regnetx-3.2GF_fpn_1x_coco", faster_rcnn, X3_2GF, BASE),
    row("faster_rcnn_regnetx-3.2GF_fpn_2x_coco", faster_rcnn, X3_2GF, BASE, schedule=TWO_X),
    row("retinanet_regnetx-800MF_fpn_1x_coco", retinanet, body("regnetx_800mf"), BASE, optimizer=CLIPPED),
    row("retinanet_regnetx-1.6GF_fpn_1x_coco", retinanet, body("regnetx_1.6gf"), BASE, optimizer=CLIPPED),
    row("retinanet_regnetx-3.2GF_fpn_1x_coco", retinanet, X3_2GF, BASE, optimizer=CLIPPED),
    row(
        "faster_rcnn_regnetx-3.2GF_fpn_mstrain_3x_coco",
        faster_rcnn,
        X3_2GF,
        LONG,
        optimizer=OPTIMIZER,
    ),
    row(
        "mask_rcnn_regnetx-3.2GF_fpn_mstrain_3x_coco",
        mask_rcnn,
        X3_2GF,
        MASKS,
        train_transforms=MULTI_SCALE_FLIP,
        optimizer=CLIPPED,
        schedule=THREE_X,
    ),
]
