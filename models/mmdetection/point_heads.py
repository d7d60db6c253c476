"""Dense heads that look from points by their MMDetection names; translators as of ``anchor_heads``."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..assigners import PointAssigner
from ..layers import GN
from ..losses import GIoULoss
from ..methods.autoassign import AutoAssignHead
from ..methods.fcos import RANGES, FCOSHead
from ..methods.foveabox import FoveaHead
from ..methods.nas_fcos import searched_tower
from ..methods.reppoints import RepPointsHead, SquareAssigner
from ..settings import DenseTest
from .anchor_heads import Made, Translate
from .parts import (
    dense_test,
    distance_coder,
    focal_loss,
    last_deformed,
    max_iou_assigner,
    norm_of,
    overlap_loss,
    sigmoid_weight,
    smooth_l1,
    strides_of,
    tower_of,
)
from .settings import Settings


def _training_by_points(train: Settings) -> None:
    """Settings that these heads have, but do not read."""
    train.ignored("pos_weight", "assigner", "sampler", "allowed_border", "debug")


def _fcos(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    towers = last_deformed(head)
    return _fcos_with(head, classes, train, test, {"channels": towers.channels, "build_tower": towers})


def _nas_fcos(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    head.only("conv_cfg", None)
    # The towers are the searched ones.
    head.ignored("stacked_convs", "conv_bias", "dcn_on_last_conv")
    channels = head.take("feat_channels", 256)
    build = partial(searched_tower, head.take("in_channels"), channels, norm_of(head, default=GN))
    return _fcos_with(head, classes, train, test, {"channels": channels, "build_tower": build})


def _fcos_with(head: Settings, classes: int, train: Settings, test: Settings, towers: dict[str, Any]) -> Made:
    _training_by_points(train)
    distance_coder(head)
    radius = head.take("center_sample_radius", 1.5)
    strides = strides_of(head)
    made = FCOSHead(
        num_classes=classes,
        normalized=head.take("norm_on_bbox", False),
        center_radius=radius if head.take("center_sampling", False) else None,
        centerness_on_reg=head.take("centerness_on_reg", False),
        strides=strides,
        ranges=[(float(low), float(high)) for low, high in head.take("regress_ranges", RANGES[: len(strides)])],
        class_loss=focal_loss(head) if "loss_cls" in head else None,
        box_loss=overlap_loss(head) if "loss_bbox" in head else None,
        **towers,
    )
    if len(made.ranges) != len(strides):
        raise head.untranslated("regress_ranges", f"expected one for each of the {len(strides)} strides")
    if sigmoid_weight(head, "loss_centerness") != 1.0:
        raise head.untranslated("loss_centerness", "expected a weight of 1")
    return made, DenseTest(**dense_test(test))


def _autoassign(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    _training_by_points(train)
    distance_coder(head)
    head.only("conv_cfg", None)
    head.only("dcn_on_last_conv", False)
    head.only("force_topk", False)
    # Not read by this head, or only where points are forced.
    head.ignored("topk", "loss_cls", "loss_centerness", "norm_on_bbox", "centerness_on_reg")
    head.ignored("center_sampling", "center_sample_radius", "regress_ranges")
    loss = overlap_loss(head)
    if not isinstance(loss, GIoULoss):
        raise head.untranslated("loss_bbox", "expected GIoULoss")
    made = AutoAssignHead(
        num_classes=classes,
        towers=tower_of(head, norm_of(head, default=GN), bias=True),
        strides=strides_of(head),
        box_weight=loss.weight,
        positive_weight=head.take("pos_loss_weight", 0.25),
        negative_weight=head.take("neg_loss_weight", 0.75),
        prior_weight=head.take("center_loss_weight", 0.75),
    )
    return made, DenseTest(**dense_test(test))


def _fovea(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    _training_by_points(train)
    distance_coder(head)
    head.only("conv_cfg", None)
    head.only("conv_bias", "auto")
    head.only("dcn_on_last_conv", False)
    strides = strides_of(head)
    units = tuple(head.take("base_edge_list", (16, 32, 64, 128, 256)))
    given = head.take("scale_ranges", ((8, 32), (16, 64), (32, 128), (64, 256), (128, 512)))
    for key, values in (("base_edge_list", units), ("scale_ranges", given)):
        if len(values) != len(strides):
            raise head.untranslated(key, f"expected one for each of the {len(strides)} strides")
    made = FoveaHead(
        num_classes=classes,
        towers=tower_of(head, norm_of(head)),
        align=head.take("with_deform", False),
        offset_groups=head.take("deform_groups", 4),
        share=head.take("sigma", 0.4),
        strides=strides,
        units=units,
        ranges=tuple((low, high) for low, high in given),
        class_loss=focal_loss(head),
        box_loss=smooth_l1(head),
    )
    return made, DenseTest(**dense_test(test))


def _reppoints(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    distance_coder(head)
    head.only("conv_cfg", None)
    # Convolutions have a bias where no normalization follows, whatever these say.
    head.ignored("conv_bias", "dcn_on_last_conv", "center_init", "loss_bbox", "strides")
    head.only("moment_mul", 0.01)
    side = round(head.take("num_points", 9) ** 0.5)
    head.only("num_points", side * side)
    rules: dict[str, Any] = {}
    scale = head.take("point_base_scale", 4)
    if "init" in train:
        first, refined = train.part("init"), train.part("refine")
        for part in (first, refined):
            part.ignored("allowed_border", "debug")
            part.only("pos_weight", -1, default=-1)
        points = first.part("assigner")
        if points.get("type") == "PointAssigner":
            points.ignored("type")
            rules = {"assign_first": PointAssigner(scale=points.take("scale", 4), count=points.take("pos_num", 3))}
        else:
            rules = {"assign_first": SquareAssigner(scale, max_iou_assigner(first))}
        rules |= {"assign_refined": max_iou_assigner(refined)}
    made = RepPointsHead(
        num_classes=classes,
        towers=tower_of(head, norm_of(head)),
        point_channels=head.take("point_feat_channels", 256),
        points_per_side=side,
        strides=strides_of(head, "point_strides"),
        base_scale=scale,
        gradient_factor=head.take("gradient_mul", 0.1),
        box_from=head.only("transform_method", "moment", "minmax", "partial_minmax"),
        grid=head.take("use_grid_points", False),
        class_loss=focal_loss(head),
        first_loss=smooth_l1(head, "loss_bbox_init"),
        refined_loss=smooth_l1(head, "loss_bbox_refine"),
        **rules,
    )
    return made, DenseTest(**dense_test(test))


POINT_HEADS: dict[str, Translate] = {
    "FCOSHead": _fcos,
    "NASFCOSHead": _nas_fcos,
    "AutoAssignHead": _autoassign,
    "FoveaHead": _fovea,
    "RepPointsHead": _reppoints,
}
