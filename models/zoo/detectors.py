"""DetectoRS: the rows of its document, with either of its two parts or both."""

from __future__ import annotations

from functools import partial

from ..backbones.detectors_resnet import DetectoRSResNet
from ..methods.detectors import detectors_cascade_rcnn, detectors_htc
from .common import COCO, Body, row
from .htc import BASE

PLAIN = Body(partial(DetectoRSResNet, 50, switchable=False), "torchvision://resnet50")
SWITCHABLE = PLAIN.built_with(switchable=True)

CASCADE, HTC = partial(detectors_cascade_rcnn, recursive=False), partial(detectors_htc, recursive=False)
RECURSIVE_CASCADE, RECURSIVE_HTC = (
    partial(detectors_cascade_rcnn, recursive=True),
    partial(detectors_htc, recursive=True),
)

RECIPES = [
    row("cascade_rcnn_r50_rfp_1x_coco", RECURSIVE_CASCADE, PLAIN, COCO),
    row("cascade_rcnn_r50_sac_1x_coco", CASCADE, SWITCHABLE, COCO),
    row("detectors_cascade_rcnn_r50_1x_coco", RECURSIVE_CASCADE, SWITCHABLE, COCO),
    row("htc_r50_rfp_1x_coco", RECURSIVE_HTC, PLAIN, BASE),
    row("htc_r50_sac_1x_coco", HTC, SWITCHABLE, BASE),
    row("detectors_htc_r50_1x_coco", RECURSIVE_HTC, SWITCHABLE, BASE),
]
