"""Heads that propose regions by their MMDetection names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..assigners.region import RegionAssigner
from ..losses import BinaryCrossEntropy, IoULoss
from ..methods.cascade_rpn import CascadeRPNHead
from ..methods.guided_anchoring import GARPNHead
from ..methods.rpn import RPNHead
from .parts import (
    anchor_guide,
    anchor_training,
    anchors_of,
    box_loss,
    class_loss,
    delta_coder,
    max_iou_assigner,
    overlap_loss,
    proposals_of,
    sampler_of,
    squares_of,
)
from .settings import Settings


def proposal_head(head: Settings, train: Settings, test: Settings) -> Any:
    """The first stage of a detector."""
    kind = head.take("type")
    if kind not in PROPOSAL_HEADS:
        raise head.untranslated("type", f"expected {', '.join(PROPOSAL_HEADS)}")
    head.ignored("init_cfg")
    return PROPOSAL_HEADS[kind](head, train, test)


def _objectness(head: Settings) -> BinaryCrossEntropy:
    loss = class_loss(head)
    if not isinstance(loss, BinaryCrossEntropy):
        raise head.untranslated("loss_cls", "expected a sigmoid cross-entropy")
    return loss


def _common_rule(train: Settings) -> Settings:
    rule = train.part("rpn")
    rule.only("pos_weight", -1, default=-1)
    rule.ignored("debug")
    return rule


def _modes(train: Settings, test: Settings) -> dict[str, Any]:
    """How proposals are made in either mode."""
    return {
        "training": proposals_of(train.part("rpn_proposal")) if "rpn_proposal" in train else None,
        "testing": proposals_of(test.part("rpn")),
    }


def _rpn(head: Settings, train: Settings, test: Settings) -> RPNHead:
    head.only("num_classes", 1)
    rule = _common_rule(train)
    return RPNHead(
        in_channels=head.take("in_channels"),
        channels=head.take("feat_channels", 256),
        convs=head.take("num_convs", 1),
        anchors=anchors_of(head),
        coder=delta_coder(head),
        assigner=max_iou_assigner(rule),
        sampler=sampler_of(rule),
        class_weight=_objectness(head).weight,
        box_loss=box_loss(head, decoded=head.take("reg_decoded_bbox", False)),
        border=rule.take("allowed_border", 0),
        **_modes(train, test),
    )


def _guided(head: Settings, train: Settings, test: Settings) -> GARPNHead:
    rule = _common_rule(train)
    rule.only("allowed_border", -1, default=0)
    channels = head.take("feat_channels", 256)
    head.only("in_channels", channels)
    guide = anchor_guide(head, rule)
    return GARPNHead(
        channels=channels,
        guide=guide,
        offset_groups=head.take("deform_groups", 4),
        coder=delta_coder(head),
        assigner=max_iou_assigner(rule),
        sampler=sampler_of(rule),
        class_loss=_objectness(head),
        box_loss=box_loss(head, decoded=head.take("reg_decoded_bbox", False)),
        **_modes(train, test),
    )


def _cascade(head: Settings, train: Settings, test: Settings) -> CascadeRPNHead:
    head.only("num_stages", 2)
    first, second = head.take("stages")
    rules = train.take("rpn")
    channels = first.take("in_channels")
    for stage, rule, scored in ((first, rules[0], False), (second, rules[1], True)):
        stage.only("type", "StageCascadeRPNHead")
        stage.only("in_channels", channels)
        stage.only("feat_channels", channels, default=256)
        stage.only("bridged_feature", not scored, default=False)
        stage.only("sampling", scored, default=True)
        stage.only("with_cls", scored, default=True)
        stage.only("reg_decoded_bbox", True, default=False)
        stage.ignored("init_cfg", *(() if scored else ("loss_cls",)))
        anchor_training(rule)
    adapted = first.part("adapt_cfg")
    adapted.only("type", "dilation")
    second.part("adapt_cfg").only("type", "offset")
    squares, scale = squares_of(first, "anchor_generator")
    strides = tuple(int(stride) for stride in squares.square_strides)
    region = rules[0].part("assigner")
    region.only("type", "RegionAssigner")
    boxes = [overlap_loss(stage) for stage in (first, second)]
    if not isinstance(boxes[0], IoULoss) or boxes[0].shape != "linear" or boxes[1] != boxes[0]:
        raise first.untranslated("loss_bbox", "expected the same linear IoULoss in both stages")
    # The settings of testing hold in training, too.
    train.ignored("rpn_proposal")
    return CascadeRPNHead(
        channels=channels,
        dilation=adapted.take("dilation", 3),
        strides=strides,
        scale=scale,
        first_coder=delta_coder(first),
        coder=delta_coder(second),
        first_assigner=RegionAssigner(
            strides, scale, region.take("center_ratio", 0.2), region.take("ignore_ratio", 0.5), neighbours_win=True
        ),
        assigner=max_iou_assigner(rules[1]),
        sampler=sampler_of(rules[1]),
        box_weight=boxes[0].weight,
        class_weight=_objectness(second).weight,
        proposals=proposals_of(test.part("rpn")),
    )


PROPOSAL_HEADS: dict[str, Callable[[Settings, Settings, Settings], Any]] = {
    "RPNHead": _rpn,
    "GARPNHead": _guided,
    "CascadeRPNHead": _cascade,
}
