"""The rows of "Cityscapes Dataset", trained on from the COCO checkpoints."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Flip, Preprocessing, Resize
from ..losses import SmoothL1Loss
from ..methods.faster_rcnn import faster_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..recipe import Optimizer, Sampling, Schedule
from ..roi.box_head import BoxHead
from .common import COCO, R50, row

BASE = replace(
    COCO,
    dataset="cityscapes",
    num_classes=8,
    preprocessing=Preprocessing(size=(2048, 1024)),
    train_transforms=(Resize(((2048, 800), (2048, 1024)), draw="range"), Flip()),
    sampling=Sampling(repeats=8),
    images_per_device=1,
    optimizer=Optimizer(lr=0.01),
    schedule=Schedule(epochs=8, drops=(7,)),
)
BODY = replace(R50, weights=None)
BBOX_HEAD = partial(BoxHead, box_loss=SmoothL1Loss())
ZOO = "https://download.openmmlab.com/mmdetection/v2.0"

RECIPES = [
    row(
        "faster_rcnn_r50_fpn_1x_cityscapes",
        partial(faster_rcnn, bbox_head=BBOX_HEAD),
        BODY,
        BASE,
        start_from=f"{ZOO}/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth",
    ),
    row(
        "mask_rcnn_r50_fpn_1x_cityscapes",
        partial(mask_rcnn, bbox_head=BBOX_HEAD),
        BODY,
        BASE,
        needs_masks=True,
        start_from=f"{ZOO}/mask_rcnn/mask_rcnn_r50_fpn_1x_coco/mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth",
    ),
]
