"""A small training in a process of its own, as the endurance tests start, kill and compare it.

training.py OUT FAMILY [OPTIONS AS JSON]     options of sdk.fit, besides: frozen (no statistics over a batch)
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial

import torch
from torch import nn

import sdk
from sdk.datasets.transforms import Flip, PhotometricDistortion, Preprocessing, ScaleJitter
from sdk.models.methods.faster_rcnn import faster_rcnn
from sdk.models.methods.mask_rcnn import mask_rcnn
from sdk.models.recipe import Optimizer
from sdk.models.zoo import tiny

PARTS = {
    **tiny.RCNN_PARTS,
    "backbone": partial(tiny.small_resnet, 4),
    "neck": partial(tiny.FPN, out_channels=8),
    "rpn_head": partial(tiny.RPNHead, in_channels=8, channels=8),
    "bbox_head": partial(tiny.BoxHead, in_channels=8, fc_channels=16),
}
FAMILIES = {
    "retinanet": partial(tiny.tiny_retinanet, base_channels=4, channels=8, depth=1),
    "fcos": partial(tiny.small_fcos, backbone=partial(tiny.small_resnet, 4), channels=16, depth=1),
    "faster_rcnn": partial(faster_rcnn, **PARTS),
    "mask_rcnn": partial(mask_rcnn, **PARTS, mask_head=partial(tiny.FCNMaskHead, in_channels=8, channels=8, convs=1)),
}


def main(out: str, family: str, options: dict) -> None:
    frozen, images = options.pop("frozen", False), options.pop("images", 24)
    optimizer = Optimizer(**options.pop("optimizer", {"lr": 0.02, "clip_norm": 10.0}))
    torch.manual_seed(0)
    model = FAMILIES[family](4)
    if frozen:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]
                module.training = False
    model.recipe = replace(
        tiny.RETINANET,
        name=f"{family}_endures",
        preprocessing=Preprocessing(size=(64, 64)),
        images_per_device=2,
        train_transforms=(ScaleJitter((64, 64), (0.8, 1.2)), Flip(), PhotometricDistortion()),
        schedule=replace(tiny.RETINANET.schedule, epochs=3),
        optimizer=optimizer,
        ema_decay=0.9,
        needs_masks=family == "mask_rcnn",
    )
    if frozen:  # Images of one size: what is padded depends on the batch.
        model.recipe = replace(model.recipe, train_transforms=(Flip(), PhotometricDistortion()))
    shapes = sdk.datasets.Shapes(images, size=(64, 64))
    sdk.fit(shapes, model, out=out, **{"workers": 2, "resume": "auto", "save_every": 5, **options})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
