"""Small detectors that train on two CPU cores, from random weights; ``fcos_mobilenet`` from a pretrained backbone.

Those named after shapes learn the drawn shapes in a few minutes; the others are for a few hundred photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ...datasets.transforms import Flip, Preprocessing, Resize, ScaleJitter
from ..backbones.mobilenet import MobileNetV2
from ..backbones.resnet import ResNet
from ..dense.towers import tower
from ..detectors.set_prediction import DenoisingDetector
from ..detectors.single_stage import SingleStageDetector
from ..layers import GN
from ..losses import GIoULoss
from ..methods.d_fine import DFINEHead, d_fine, fine_encoder
from ..methods.faster_rcnn import faster_rcnn
from ..methods.fcos import FCOSHead
from ..methods.mask_rcnn import mask_rcnn
from ..methods.retinanet import RetinaHead, retina_anchors
from ..methods.rpn import RPNHead
from ..methods.rt_detr import RTDETRHead, rt_detr
from ..necks.fpn import FPN
from ..necks.hybrid_encoder import HybridEncoder, csp_fusion
from ..recipe import Optimizer, ParameterRule, Recipe, Schedule
from ..roi.box_head import BoxHead
from ..roi.mask_head import FCNMaskHead
from ..settings import DenseTest

STRIDES = (8, 16, 32, 64)
NORM = replace(GN, groups=8)


def small_resnet(base_channels: int) -> ResNet:
    """ResNet-18 with fewer channels, all of it trained."""
    return ResNet(18, frozen_stages=-1, norm_eval=False, base_channels=base_channels)


def tiny_retinanet(
    num_classes: int, *, base_channels: int, channels: int, depth: int, strides: Sequence[int] = STRIDES
) -> SingleStageDetector:
    """RetinaNet with a narrow backbone, pyramid and head."""
    body = small_resnet(base_channels)
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, channels, start=1, num_outs=len(strides), extra="input"),
        bbox_head=RetinaHead(
            num_classes=num_classes,
            in_channels=channels,
            channels=channels,
            depth=depth,
            anchors=retina_anchors(strides),
        ),
        test=DenseTest(),
    )


def small_fcos(
    num_classes: int, *, backbone: Callable[[], ResNet | MobileNetV2], channels: int, depth: int
) -> SingleStageDetector:
    """FCOS (centre sampling, GIoU, centerness beside the boxes) with a narrow pyramid and head."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=FPN(body.out_channels, channels, start=1, extra="output", relu_before_extra=True),
        bbox_head=FCOSHead(
            num_classes=num_classes,
            channels=channels,
            build_tower=partial(tower, channels, channels, depth, NORM, bias=True),
            normalized=True,
            center_radius=1.5,
            centerness_on_reg=True,
            box_loss=GIoULoss(),
        ),
        test=DenseTest(nms_threshold=0.6),
    )


def tiny_rt_detr(num_classes: int, *, base_channels: int, channels: int) -> DenoisingDetector:
    """RT-DETR with a narrow backbone, a narrow encoder and three narrow layers of the decoder."""
    narrow = {"channels": channels, "heads": 4, "hidden": 4 * channels}
    body = partial(small_resnet, base_channels)
    encoder = partial(HybridEncoder, fusion=partial(csp_fusion, expansion=0.5), **narrow)
    return rt_detr(
        num_classes, backbone=body, encoder=encoder, head=partial(RTDETRHead, queries=100, layers=3, **narrow)
    )


def tiny_d_fine(num_classes: int, *, base_channels: int, channels: int) -> DenoisingDetector:
    """D-FINE with a narrow backbone, a narrow encoder and three narrow layers of the decoder."""
    narrow = {"channels": channels, "hidden": 4 * channels}
    return d_fine(
        num_classes,
        backbone=partial(small_resnet, base_channels),
        encoder=partial(fine_encoder, expansion=0.5, blocks=1, **narrow),
        head=partial(DFINEHead, queries=100, layers=3, **narrow),
    )


# Few images and random weights: AdamW gets further with them than SGD does, in as many steps.
ADAMW = Optimizer(kind="adamw", lr=2e-3, weight_decay=0.05, norm_decay_factor=0.0, clip_norm=10.0)
RETINANET = Recipe(
    name="retinanet_tiny_shapes",
    build=partial(tiny_retinanet, base_channels=32, channels=64, depth=2),
    num_classes=4,
    dataset="shapes",
    preprocessing=Preprocessing(size=(128, 128)),
    train_transforms=(Resize(((128, 128),)), Flip()),
    images_per_device=8,
    devices=1,
    optimizer=ADAMW,
    schedule=Schedule(epochs=48, warmup_steps=100, decay="cosine", drops=()),
    ema_decay=0.995,
)
FCOS = Recipe(
    name="fcos_tiny",
    build=partial(small_fcos, backbone=partial(small_resnet, 32), channels=64, depth=2),
    preprocessing=Preprocessing(size=(320, 240)),
    train_transforms=(ScaleJitter((320, 240), (0.8, 1.2)), Flip(), Flip(direction="vertical")),
    images_per_device=4,
    devices=1,
    optimizer=replace(ADAMW, lr=1e-3),
    schedule=Schedule(epochs=36, warmup_steps=60, decay="cosine", drops=()),
    ema_decay=0.995,
)
RCNN_PARTS = {
    "backbone": partial(small_resnet, 16),
    "neck": partial(FPN, out_channels=32),
    "rpn_head": partial(RPNHead, in_channels=32, channels=32),
    "bbox_head": partial(BoxHead, in_channels=32, fc_channels=128),
}

RECIPES = [
    RETINANET,
    replace(RETINANET, name="faster_rcnn_tiny_shapes", build=partial(faster_rcnn, **RCNN_PARTS)),
    replace(
        RETINANET,
        name="mask_rcnn_tiny_shapes",
        build=partial(mask_rcnn, **RCNN_PARTS, mask_head=partial(FCNMaskHead, in_channels=32, channels=32, convs=2)),
        needs_masks=True,
    ),
    FCOS,
    replace(
        FCOS,
        name="fcos_mobilenet",
        build=partial(small_fcos, backbone=partial(MobileNetV2, frozen_layers=4), channels=64, depth=2),
        backbone_weights="torchvision://mobilenet_v2",
        preprocessing=Preprocessing(size=(416, 312)),
        train_transforms=(ScaleJitter((416, 312), (0.8, 1.2)), Flip(), Flip(direction="vertical")),
        optimizer=replace(FCOS.optimizer, rules=(ParameterRule("backbone", lr_factor=0.25),)),
        schedule=replace(FCOS.schedule, epochs=20),
    ),
    replace(FCOS, name="dfine_tiny", build=partial(tiny_d_fine, base_channels=32, channels=64)),
    replace(FCOS, name="rtdetr_tiny", build=partial(tiny_rt_detr, base_channels=32, channels=64)),
]
