"""Libra R-CNN: Pang et al., "Libra R-CNN: Towards Balanced Learning for Object Detection".

Faster R-CNN, Fast R-CNN and RetinaNet, balanced in three ways: regions are sampled evenly over their overlaps and
objects, all pyramid levels are strengthened with their refined average, and the box loss keeps outliers from ruling it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from ..backbones.resnet import ResNet
from ..detectors.single_stage import SingleStageDetector
from ..detectors.two_stage import TwoStageDetector
from ..losses import BalancedL1Loss
from ..necks.bfp import BFP
from ..necks.fpn import FPN
from ..roi.box_head import BoxHead
from ..roi.standard import StandardRoIHead
from ..samplers import BalancedSampler, RandomSampler
from ..settings import DenseTest
from .fast_rcnn import fast_rcnn
from .faster_rcnn import faster_rcnn
from .retinanet import RetinaHead
from .rpn import RPNHead


def balanced_pyramid(channels: Sequence[int]) -> nn.Sequential:
    """A pyramid from the backbone's ``channels``, whose levels meet in the third."""
    return nn.Sequential(FPN(channels), BFP(level=2))


def balanced_roi_head() -> Callable[..., StandardRoIHead]:
    """The second stage with balanced sampling."""
    return partial(StandardRoIHead, sampler=BalancedSampler())


bbox_head = partial(BoxHead, box_loss=BalancedL1Loss())


def libra_fast_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Libra Fast R-CNN on a backbone with four stages."""
    return fast_rcnn(
        num_classes, backbone=backbone, neck=balanced_pyramid, bbox_head=bbox_head, roi_head=balanced_roi_head()
    )


def libra_faster_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Libra R-CNN on a backbone with four stages."""
    return faster_rcnn(
        num_classes,
        backbone=backbone,
        neck=balanced_pyramid,
        rpn_head=partial(RPNHead, sampler=RandomSampler(num=256, pos_fraction=0.5, neg_pos_ub=5)),
        bbox_head=bbox_head,
        roi_head=balanced_roi_head(),
    )


def libra_retinanet(num_classes: int, *, backbone: Callable[[], ResNet]) -> SingleStageDetector:
    """Libra RetinaNet on a backbone with four stages."""
    body = backbone()
    return SingleStageDetector(
        backbone=body,
        neck=nn.Sequential(FPN(body.out_channels, start=1, extra="input"), BFP(level=1)),
        bbox_head=RetinaHead(num_classes=num_classes, box_loss=BalancedL1Loss(beta=0.11)),
        test=DenseTest(),
    )
