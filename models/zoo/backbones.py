"""Rows on other backbones: ``retinanet_r50_fpn_1x_coco+timm/convnext_tiny.fb_in1k``."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from ..backbones.detectors_resnet import DetectoRSResNet
from ..backbones.hrnet import HRNet
from ..backbones.mobilenet import MobileNetV2
from ..backbones.resnet import StagedBackbone
from ..backbones.timm import TimmBackbone, pixels_of
from ..backbones.trident_resnet import TridentResNet
from ..methods.faster_rcnn import faster_rcnn_dc5
from ..recipe import Recipe
from .builders import innermost, own_backbone
from .tiny import small_resnet


def on_extractor(recipe: Recipe, name: str) -> Recipe:
    """The row on an extractor of ``timm``: with its pixels and pretrained weights, and without published ones.

    Raises ValueError for a row whose method reads other maps than those of strides 4 to 32.
    """
    own = own_backbone(recipe)
    kind, method = innermost(own), innermost(recipe.build)
    pyramids = kind is small_resnet or (
        isinstance(kind, type)
        and issubclass(kind, (StagedBackbone, HRNet, MobileNetV2))
        and not issubclass(kind, (DetectoRSResNet, TridentResNet))
        # Its last stage is dilated.
        and method is not faster_rcnn_dc5
    )
    if not pyramids:
        raise ValueError(f"backbone: the method of {recipe.name} needs its own; take a row with a feature pyramid")
    mean, std = pixels_of(name)
    build: Any = recipe.build
    stages = own.keywords.get("out_stages", (0, 1, 2, 3)) if isinstance(own, partial) else (0, 1, 2, 3)
    return replace(
        recipe,
        name=f"{recipe.name}+timm/{name}",
        build=partial(build, backbone=partial(TimmBackbone, name, out_stages=stages)),
        # Some extractors drop what is left over from their coarsest stride.
        preprocessing=replace(
            recipe.preprocessing, mean=mean, std=std, channels="rgb", divisor=math.lcm(recipe.preprocessing.divisor, 32)
        ),
        backbone_weights=f"timm/{name}",
        start_from=None,
        weights=None,
        published={},
    )
