"""DetectoRS: Qiao et al., "DetectoRS: Detecting Objects with Recursive Feature Pyramid and Switchable Atrous
Convolution". Cascade R-CNN or Hybrid Task Cascade with a backbone of switchable atrous convolutions (section 4) and a
pyramid that is fed back into a second backbone (section 3); either of the two also stands alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..backbones.detectors_resnet import DetectoRSResNet
from ..detectors.two_stage import TwoStageDetector
from ..necks.fpn import FPN
from ..necks.rfp import RFP
from ..roi.semantic_head import COCO_STUFF_CLASSES
from .cascade_rcnn import cascade_rcnn
from .htc import htc


def pyramid(backbone: Callable[..., DetectoRSResNet], recursive: bool) -> Callable[[tuple[int, ...]], nn.Module]:
    """What builds the neck: a recursive pyramid, or a plain one."""
    return partial(RFP, backbone=backbone) if recursive else FPN


def detectors_cascade_rcnn(
    num_classes: int, *, backbone: Callable[..., DetectoRSResNet], recursive: bool
) -> TwoStageDetector:
    """Cascade R-CNN with the backbone and, where ``recursive``, the pyramid of DetectoRS."""
    return cascade_rcnn(
        num_classes, backbone=partial(backbone, with_image=recursive), neck=pyramid(backbone, recursive)
    )


def detectors_htc(
    num_classes: int,
    *,
    backbone: Callable[..., DetectoRSResNet],
    recursive: bool,
    semantic: int | None = COCO_STUFF_CLASSES,
) -> TwoStageDetector:
    """Hybrid Task Cascade with the backbone and, where ``recursive``, the pyramid of DetectoRS."""
    return htc(
        num_classes,
        backbone=partial(backbone, with_image=recursive),
        neck=pyramid(backbone, recursive),
        semantic=semantic,
    )
