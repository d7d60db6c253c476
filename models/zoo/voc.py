"""The rows of "PASCAL VOC Dataset", trained on 2007 and 2012."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.transforms import Flip, Preprocessing, Resize
from ..methods.faster_rcnn import faster_rcnn
from ..methods.retinanet import retinanet
from ..recipe import Optimizer, Sampling, Schedule
from .common import COCO, R50, row

BASE = replace(
    COCO,
    dataset="voc0712",
    num_classes=20,
    preprocessing=Preprocessing(size=(1000, 600)),
    train_transforms=(Resize(((1000, 600),)), Flip()),
    sampling=Sampling(repeats=3),
    optimizer=Optimizer(lr=0.01),
    schedule=Schedule(epochs=4, drops=(3,), warmup_steps=0),
)

RECIPES = [
    row("faster_rcnn_r50_fpn_1x_voc0712", faster_rcnn, R50, BASE),
    row("retinanet_r50_fpn_1x_voc0712", retinanet, R50, BASE),
]
