"""RT-DETR and RT-DETRv2: the rows of "DETRs Beat YOLOs on Real-time Object Detection" and "RT-DETRv2: Improved Baseline
with Bag-of-Freebies for Real-Time Detection Transformer".

Settings are those of the authors' repository. Two things differ in training: every batch has the test size
(theirs is drawn for each batch between 480 and 800), and augmentation goes on to the end.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...datasets.transforms import Expand, Flip, MinIoUCrop, PhotometricDistortion, Preprocessing, Resize
from ..backbones.resnet import ResNet
from ..layers import FROZEN_BN
from ..methods.rt_detr import RTDETRHead, rt_detr
from ..necks.hybrid_encoder import HybridEncoder, csp_fusion
from ..recipe import Optimizer, ParameterRule, Recipe, Schedule
from .common import COCO, Body, row

resnet_vd = partial(ResNet, deep_stem_channels=64, average_shortcut=True, project_shortcut=True, out_stages=(1, 2, 3))
"""The ResNet of PaddleDetection."""
# The small ones are trained as a whole, the others but for the stem and all normalization.
whole = partial(resnet_vd, frozen_stages=-1, norm_eval=False)
frozen = partial(resnet_vd, frozen_stages=0, norm=FROZEN_BN)
# Pixels in 0..1.
UNIT = Body(resnet_vd, None, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
R18, R34, R50, R101 = (
    replace(UNIT, build=partial(build, depth))
    for build, depth in ((whole, 18), (whole, 34), (frozen, 50), (frozen, 101))
)


def optimizer(backbone_factor: float = 0.1) -> Optimizer:
    """AdamW without decay of biases and normalization; the backbone at a share of the learning rate."""
    return Optimizer(
        "adamw",
        lr=1e-4,
        weight_decay=1e-4,
        norm_decay_factor=0.0,
        bias_decay_factor=0.0,
        rules=(ParameterRule("backbone", lr_factor=backbone_factor),),
        clip_norm=0.1,
    )


BASE = replace(
    COCO,
    preprocessing=Preprocessing(size=(640, 640), keep_ratio=False),
    train_transforms=(
        PhotometricDistortion(),
        Expand(fill=(0.0, 0.0, 0.0)),
        MinIoUCrop(),
        Flip(),
        Resize(((640, 640),), keep_ratio=False),
    ),
    images_per_device=4,
    devices=4,
    optimizer=optimizer(),
    schedule=Schedule(epochs=72, drops=(), warmup_steps=0),
    ema_decay=0.9999,
)
BASE_V2 = replace(BASE, schedule=replace(BASE.schedule, warmup_steps=2000, warmup_factor=0.0), precision="16")

HALF = partial(HybridEncoder, fusion=partial(csp_fusion, expansion=0.5))
SMALL = partial(rt_detr, encoder=HALF, head=partial(RTDETRHead, layers=3))
MIDDLE = partial(rt_detr, encoder=HALF, head=partial(RTDETRHead, layers=4))
SCALED = partial(rt_detr, encoder=HALF, head=partial(RTDETRHead, answer_layer=2))
LARGE = partial(rt_detr, encoder=partial(HybridEncoder, channels=384, hidden=2048))
SLOW = optimizer(0.01)


def lasting(epochs: int) -> Recipe:
    """The second version with so many epochs."""
    return replace(BASE_V2, schedule=replace(BASE_V2.schedule, epochs=epochs))


RECIPES = [
    row("rtdetr_r18vd_6x_coco", SMALL, R18, BASE),
    row("rtdetr_r34vd_6x_coco", MIDDLE, R34, BASE),
    row("rtdetr_r50vd_m_6x_coco", SCALED, R50, BASE),
    row("rtdetr_r50vd_6x_coco", rt_detr, R50, BASE),
    row("rtdetr_r101vd_6x_coco", LARGE, R101, BASE, optimizer=SLOW),
    row("rtdetrv2_r18vd_120e_coco", SMALL, R18, lasting(120), optimizer=optimizer(1.0)),
    row("rtdetrv2_r34vd_120e_coco", MIDDLE, R34, lasting(120), optimizer=optimizer(0.5)),
    row("rtdetrv2_r50vd_m_7x_coco", SCALED, R50, lasting(84)),
    row("rtdetrv2_r50vd_6x_coco", rt_detr, R50, lasting(72)),
    row("rtdetrv2_r101vd_6x_coco", LARGE, R101, lasting(72), optimizer=SLOW),
]
