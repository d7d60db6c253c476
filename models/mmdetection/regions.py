"""Heads of regions by their MMDetection names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import nn

from ..detectors.two_stage import RoIHead
from ..layers import BN
from ..losses import CrossEntropy, SmoothL1Loss
from ..methods.double_heads import DoubleBoxHead, WidenedRegions
from ..methods.dynamic_rcnn import INITIAL_BETA, INITIAL_OVERLAP, DynamicRoIHead
from ..methods.grid_rcnn import NORM as GRID_NORM
from ..methods.grid_rcnn import POINTS, GridHead, GridRoIHead, RegionClassifier
from ..methods.htc import HTCMaskHead, HTCRoIHead
from ..methods.ms_rcnn import MaskIoUHead, MaskScoringRoIHead
from ..methods.ohem import OHEMRoIHead
from ..methods.pisa import PISARoIHead
from ..methods.point_rend import CoarseMaskHead, PointHead, PointRendRoIHead, PointSampler
from ..methods.sabl import SABLHead
from ..methods.scnet import (
    FeatureRelayHead,
    GlobalContextHead,
    SCNetMaskHead,
    SCNetRoIHead,
    residual_pairs,
)
from ..methods.tridentnet import LastStage
from ..roi.box_head import BoxHead, Branches, RegionHead
from ..roi.cascade import CascadeRoIHead
from ..roi.extractor import RoIExtractor
from ..roi.mask_head import FCNMaskHead, carafe_upsample
from ..roi.semantic_head import IGNORED_CLASS, FusedSemanticHead
from ..roi.standard import StandardRoIHead
from ..samplers import OHEMSampler
from .extractors import extractor_of
from .parts import (
    box_loss,
    bucket_coder,
    class_loss,
    conv_of,
    delta_coder,
    importance,
    max_iou_assigner,
    norm_of,
    plain_carafe,
    sampler_of,
    sigmoid_weight,
    smooth_l1,
)
from .settings import Settings

Classes: TypeAlias = int | None
"""A class count instead of the configuration's own."""


def region_head(head: Settings, classes: Classes, train: Settings, test: Settings) -> RoIHead:
    """The second stage of a detector, or all of its later stages."""
    kind = head.take("type")
    if kind not in REGION_HEADS:
        raise head.untranslated("type", f"expected {', '.join(REGION_HEADS)}")
    head.ignored("init_cfg")
    return REGION_HEADS[kind](head, classes, train, test)


def _count(head: Settings, classes: Classes) -> int:
    count = head.take("num_classes", 80)
    return count if classes is None else classes


def _rule(rule: Settings, by_loss: str | None = None) -> dict[str, Any]:
    """Assigner and sampler of regions."""
    rule.only("pos_weight", -1, default=-1)
    rule.ignored("debug")
    if "mask_size" not in rule.used:
        # Without a mask head nothing is of that size.
        rule.ignored("mask_size")
    return {"assigner": max_iou_assigner(rule), "sampler": sampler_of(rule, by_loss=by_loss)}


def _boxes(head: Settings, classes: Classes) -> dict[str, Any]:
    return {
        "bbox_roi_extractor": extractor_of(head.part("bbox_roi_extractor")),
        "bbox_head": box_head(head.part("bbox_head"), classes),
    }


def _masks(head: Settings, classes: Classes, rule: Settings) -> dict[str, Any]:
    """Extractor and head of the masks, or nothing where there are none."""
    if head.get("mask_head") is None:
        head.ignored("mask_head", "mask_roi_extractor")
        return {}
    if head.get("mask_roi_extractor") is None:
        raise head.untranslated("mask_roi_extractor", "expected an extractor beside a mask head")
    extractor = head.part("mask_roi_extractor")
    return {
        "mask_roi_extractor": extractor_of(extractor),
        "mask_head": mask_head(head.part("mask_head"), classes, rule, extractor),
    }


def _standard(head: Settings, classes: Classes, train: Settings, test: Settings) -> StandardRoIHead:
    rule = train.part("rcnn")
    masks = _masks(head, classes, rule)
    parts = {**masks, **_boxes(head, classes), **_rule(rule, "OHEMSampler")}
    parts["shared_head"] = _last_stage(head)
    return (OHEMRoIHead if isinstance(parts["sampler"], OHEMSampler) else StandardRoIHead)(**parts)


def _last_stage(head: Settings) -> LastStage | None:
    """The layers that every region passes through in networks without a pyramid."""
    if head.get("shared_head") is None:
        head.ignored("shared_head")
        return None
    shared = head.part("shared_head")
    shared.ignored("init_cfg", "pretrained", "with_cp")
    shared.only("type", "ResLayer")
    shared.only("stage", 3)
    # The depths whose last stage has these three blocks.
    shared.only("depth", 50, 101, 152)
    shared.only("dcn", None)
    return LastStage(
        stride=shared.take("stride", 2),
        dilation=shared.take("dilation", 1),
        style=shared.only("style", "pytorch", "caffe"),
        norm=norm_of(shared, default=BN) or BN,
        norm_eval=shared.take("norm_eval", True),
    )


def _trident(head: Settings, classes: Classes, train: Settings, test: Settings) -> StandardRoIHead:
    head.only("num_branch", 3)
    head.only("test_branch_idx", 1)
    return _standard(head, classes, train, test)


def _dynamic(head: Settings, classes: Classes, train: Settings, test: Settings) -> DynamicRoIHead:
    head.ignored(*(key for key in ("mask_head", "mask_roi_extractor", "shared_head") if head.get(key) is None))
    rule = train.part("rcnn")
    dynamic = rule.part("dynamic_rcnn")
    dynamic.only("initial_iou", INITIAL_OVERLAP, default=())
    dynamic.only("initial_beta", INITIAL_BETA, default=())
    return DynamicRoIHead(
        **_boxes(head, classes),
        **_rule(rule),
        overlap_rank=dynamic.take("iou_topk"),
        code_rank=dynamic.take("beta_topk"),
        interval=dynamic.take("update_iter_interval"),
    )


def _double(head: Settings, classes: Classes, train: Settings, test: Settings) -> StandardRoIHead:
    head.ignored(*(key for key in ("mask_head", "mask_roi_extractor", "shared_head") if head.get(key) is None))
    parts = {**_boxes(head, classes), **_rule(train.part("rcnn"))}
    extractor = parts["bbox_roi_extractor"]
    if not isinstance(extractor, RoIExtractor):
        raise head.untranslated("bbox_roi_extractor", "expected a SingleRoIExtractor")
    parts["bbox_roi_extractor"] = WidenedRegions(extractor, factor=head.take("reg_roi_scale_factor"))
    return StandardRoIHead(**parts)


def _pisa(head: Settings, classes: Classes, train: Settings, test: Settings) -> PISARoIHead:
    rule = train.part("rcnn")
    importance(rule)
    sampler = rule.part("sampler")
    sampler.only("type", "ScoreHLRSampler")
    for key, value in (("k", 0.5), ("bias", 0.0), ("score_thr", 0.05), ("iou_thr", 0.5)):
        sampler.only(key, value)
    head.only("shared_head", None)
    masks = _masks(head, classes, rule)
    return PISARoIHead(**masks, **_boxes(head, classes), **_rule(rule, "ScoreHLRSampler"))


def _mask_scoring(head: Settings, classes: Classes, train: Settings, test: Settings) -> MaskScoringRoIHead:
    rule = train.part("rcnn")
    # The overlap is learnt of masks that are cut at a logit of 0.5, as published.
    rule.only("mask_thr_binary", 0.5)
    head.only("shared_head", None)
    masks = _masks(head, classes, rule)
    scores = head.part("mask_iou_head")
    scores.only("type", "MaskIoUHead")
    scores.ignored("init_cfg")
    weight = 0.5
    if "loss_iou" in scores:
        loss = scores.part("loss_iou")
        loss.only("type", "MSELoss")
        weight = loss.take("loss_weight", 1.0)
    made = MaskIoUHead(
        num_classes=_count(scores, classes),
        in_channels=scores.take("in_channels", 256),
        channels=scores.take("conv_out_channels", 256),
        roi_size=scores.take("roi_feat_size", 14),
        convs=scores.take("num_convs", 4),
        fcs=scores.take("num_fcs", 2),
        fc_channels=scores.take("fc_out_channels", 1024),
        loss_weight=weight,
    )
    return MaskScoringRoIHead(**masks, **_boxes(head, classes), **_rule(rule), mask_iou_head=made)


def _point_rend(head: Settings, classes: Classes, train: Settings, test: Settings) -> PointRendRoIHead:
    rule, points = train.part("rcnn"), head.part("point_head")
    head.only("shared_head", None)
    points.only("type", "MaskPointHead")
    points.ignored("init_cfg")
    for key, value in (
        ("class_agnostic", False),
        ("coarse_pred_each_layer", True),
        ("norm_cfg", None),
        ("conv_cfg", {"type": "Conv1d"}),
        ("act_cfg", {"type": "ReLU"}),
    ):
        points.only(key, value)
    made = PointHead(
        num_classes=_count(points, classes),
        in_channels=points.take("in_channels", 256),
        channels=points.take("fc_channels", 256),
        layers=points.take("num_fcs", 3),
        loss_weight=_mask_weight(points, "loss_point"),
    )
    masks = _masks(head, classes, rule)
    times = test.part("rcnn")
    times.only("scale_factor", 2)
    return PointRendRoIHead(
        **masks,
        **_boxes(head, classes),
        **_rule(rule),
        point_head=made,
        point_sampler=PointSampler(
            points=rule.take("num_points"),
            oversampling=rule.take("oversample_ratio"),
            uncertain_share=rule.take("importance_sample_ratio"),
        ),
        subdivisions=times.take("subdivision_steps"),
        points_per_step=times.take("subdivision_num_points"),
    )


def _grid(head: Settings, classes: Classes, train: Settings, test: Settings) -> GridRoIHead:
    head.ignored(*(key for key in ("mask_head", "mask_roi_extractor", "shared_head") if head.get(key) is None))
    rule = train.part("rcnn")
    rule.only("pos_radius", 1)
    boxes, grid = head.part("bbox_head"), head.part("grid_head")
    boxes.only("type", "Shared2FCBBoxHead")
    boxes.only("with_reg", False, default=True)
    # Boxes come from the grid.
    boxes.ignored("init_cfg", "bbox_coder", "reg_class_agnostic", "loss_bbox")
    loss = class_loss(boxes) if "loss_cls" in boxes else CrossEntropy()
    if not isinstance(loss, CrossEntropy):
        raise boxes.untranslated("loss_cls", "expected cross-entropy by softmax")
    grid.only("type", "GridHead")
    grid.ignored("init_cfg")
    for key, value in (
        ("grid_points", POINTS),
        ("conv_kernel_size", 3),
        ("deconv_kernel_size", 4),
        ("class_agnostic", False),
        ("conv_cfg", None),
    ):
        grid.only(key, value)
    points = grid.part("loss_grid")
    points.only("type", "CrossEntropyLoss")
    points.only("use_sigmoid", True, default=False)
    return GridRoIHead(
        bbox_roi_extractor=extractor_of(head.part("bbox_roi_extractor")),
        bbox_head=RegionClassifier(
            num_classes=_count(boxes, classes),
            channels=boxes.take("in_channels", 256),
            roi_size=boxes.take("roi_feat_size", 7),
            fc_channels=boxes.take("fc_out_channels", 1024),
            class_loss=loss,
        ),
        grid_roi_extractor=extractor_of(head.part("grid_roi_extractor")),
        grid_head=GridHead(
            in_channels=grid.take("in_channels", 256),
            point_channels=grid.take("point_feat_channels", 64),
            convs=grid.take("num_convs", 8),
            roi_size=grid.take("roi_feat_size", 14),
            norm=norm_of(grid, default=GRID_NORM),
            loss_weight=float(points.take("loss_weight", 1.0)),
        ),
        **_rule(rule),
        max_grids=rule.take("max_num_grid", 192),
    )


def _stage_rules(head: Settings, train: Settings) -> tuple[int, Sequence[Settings]]:
    """How many stages there are, and the training settings of each."""
    count = head.take("num_stages")
    head.only("shared_head", None)
    rules = train.take("rcnn")
    if not isinstance(rules, (list, tuple)) or len(rules) != count:
        raise train.untranslated("rcnn", f"expected settings for each of {count} stages")
    return count, rules


def _stage_boxes(head: Settings, classes: Classes, count: int) -> dict[str, Any]:
    return {
        "bbox_roi_extractor": [extractor_of(one) for one in _each(head, "bbox_roi_extractor", count)],
        "bbox_head": [box_head(one, classes) for one in _each(head, "bbox_head", count)],
        "stage_weights": tuple(head.take("stage_loss_weights")),
    }


def _stage_masks(head: Settings, classes: Classes, count: int, rules: Sequence[Settings]) -> dict[str, Any]:
    if head.get("mask_head") is None:
        head.ignored("mask_head", "mask_roi_extractor")
        return {}
    extractors = _each(head, "mask_roi_extractor", count)
    heads = _each(head, "mask_head", count)
    return {
        "mask_roi_extractor": [extractor_of(one) for one in extractors],
        "mask_head": [mask_head(one, classes, rule, e) for one, rule, e in zip(heads, rules, extractors)],
    }


def _stage_training(rules: Sequence[Settings]) -> dict[str, Any]:
    found = [_rule(rule) for rule in rules]
    return {"assigners": [one["assigner"] for one in found], "samplers": [one["sampler"] for one in found]}


def _cascade(head: Settings, classes: Classes, train: Settings, test: Settings) -> CascadeRoIHead:
    count, rules = _stage_rules(head, train)
    masks = _stage_masks(head, classes, count, rules)
    return CascadeRoIHead(**_stage_boxes(head, classes, count), **masks, **_stage_training(rules))


def _each(owner: Settings, key: str, count: int) -> Sequence[Settings]:
    """The settings of each stage; one for all is repeated."""
    given = owner.take(key)
    found = [given] * count if isinstance(given, Settings) else list(given or ())
    if len(found) != count:
        raise owner.untranslated(key, f"expected one for each of {count} stages")
    return found


def _htc(head: Settings, classes: Classes, train: Settings, test: Settings) -> HTCRoIHead:
    count, rules = _stage_rules(head, train)
    head.only("interleaved", True)
    head.only("mask_info_flow", True)
    head.only("semantic_fusion", ("bbox", "mask"))
    masks = _stage_masks(head, classes, count, rules)
    if not masks or not all(isinstance(one, HTCMaskHead) for one in masks["mask_head"]):
        raise head.untranslated("mask_head", "expected an HTCMaskHead for each stage")
    boxes = _stage_boxes(head, classes, count)
    return HTCRoIHead(**boxes, **masks, **_semantic(head), **_stage_training(rules))


def _semantic(head: Settings) -> dict[str, Any]:
    """The semantic branch and what reads regions from it, where there is one."""
    if head.get("semantic_head") is None:
        head.ignored("semantic_head", "semantic_roi_extractor")
        return {"semantic_head": None}
    semantic = head.part("semantic_head")
    residual = semantic.only("type", "FusedSemanticHead", "SCNetSemanticHead") == "SCNetSemanticHead"
    semantic.ignored("init_cfg")
    semantic.only("conv_cfg", None)
    semantic.only("norm_cfg", None)
    loss = semantic.part("loss_seg")
    loss.only("type", "CrossEntropyLoss")
    loss.only("use_sigmoid", False)
    loss.only("ignore_index", IGNORED_CLASS)
    depth, channels = semantic.take("num_convs", 4), semantic.take("conv_out_channels", 256)
    if residual:
        semantic.only("conv_to_res", True)
        semantic.only("in_channels", channels, default=256)
    made = FusedSemanticHead(
        num_classes=semantic.take("num_classes", 183),
        in_channels=semantic.take("in_channels", 256),
        channels=channels,
        depth=depth,
        levels=semantic.take("num_ins"),
        fusion_level=semantic.take("fusion_level"),
        convs=residual_pairs(depth // 2, channels) if residual else None,
        loss_weight=loss.take("loss_weight", 1.0),
    )
    return {"semantic_head": made, "semantic_extractor": extractor_of(head.part("semantic_roi_extractor"))}


def _scnet(head: Settings, classes: Classes, train: Settings, test: Settings) -> SCNetRoIHead:
    count, rules = _stage_rules(head, train)
    context, relay = head.part("glbctx_head"), head.part("feat_relay_head")
    context.only("type", "GlobalContextHead")
    relay.only("type", "FeatureRelayHead")
    relay.only("scale_factor", 2)
    masks = _masks(head, classes, rules[0])
    for part in (context, relay):
        part.ignored("init_cfg")
        part.only("conv_cfg", None)
        part.only("norm_cfg", None)
    channels = context.take("conv_out_channels", 256)
    context.only("in_channels", channels, default=256)
    context.only("conv_to_res", True, default=False)
    for rule in rules[1:]:
        # All stages are trained on masks of one size.
        rule.only("mask_size", rules[0].get("mask_size"), default=())
    return SCNetRoIHead(
        **_stage_boxes(head, classes, count),
        **masks,
        **_semantic(head),
        **_stage_training(rules),
        glbctx_head=GlobalContextHead(
            num_classes=_count(context, classes),
            channels=channels,
            pairs=context.take("num_convs", 4) // 2,
            loss_weight=context.take("loss_weight", 1.0),
        ),
        feat_relay_head=FeatureRelayHead(
            in_channels=relay.take("in_channels", 1024),
            channels=relay.take("out_conv_channels", 256),
            size=relay.take("roi_feat_size", 7),
        ),
    )


def box_head(head: Settings, classes: Classes) -> RegionHead:
    """What classifies regions and refines their boxes."""
    head.ignored("init_cfg")
    kind = head.take("type")
    if kind not in BOX_HEADS:
        raise head.untranslated("type", f"expected {', '.join(BOX_HEADS)}")
    return BOX_HEADS[kind](head, classes)


def _codes(head: Settings) -> dict[str, Any]:
    """Coder and losses of a box head."""
    for key in ("with_cls", "with_reg"):
        head.only(key, True)
    for key in ("reg_predictor_cfg", "cls_predictor_cfg"):
        if isinstance(head.take(key, None), Settings):
            head.part(key).only("type", "Linear")
    return {
        "class_agnostic": head.take("reg_class_agnostic", False),
        "coder": delta_coder(head, stds=(0.1, 0.1, 0.2, 0.2)),
        "class_loss": class_loss(head) if "loss_cls" in head else CrossEntropy(),
        "box_loss": box_loss(head, decoded=head.take("reg_decoded_bbox", False))
        if "loss_bbox" in head
        else SmoothL1Loss(),
    }


def _layered(head: Settings, classes: Classes, convs: int = 0, fcs: int = 0) -> BoxHead:
    """A head with so many shared convolutions and fully connected layers, or as many as it says."""
    branches = Branches()
    if not fcs:
        convs, fcs = head.take("num_shared_convs", 0), head.take("num_shared_fcs", 0)
        names = ("num_cls_convs", "num_cls_fcs", "num_reg_convs", "num_reg_fcs")
        branches = Branches(*(head.take(name, 0) for name in names))
        if not fcs and branches == Branches():
            raise head.untranslated("num_shared_fcs", "expected fully connected layers")
    else:
        names = ("num_shared_convs", "num_shared_fcs", "num_cls_convs", "num_cls_fcs", "num_reg_convs", "num_reg_fcs")
        for name, value in zip(names, (convs, fcs, 0, 0, 0, 0), strict=True):
            head.only(name, value)
    head.only("with_avg_pool", False)
    return BoxHead(
        num_classes=_count(head, classes),
        in_channels=head.take("in_channels", 256),
        roi_size=head.take("roi_feat_size", 7),
        convs=convs,
        fcs=fcs,
        conv_channels=head.take("conv_out_channels", 256),
        fc_channels=head.take("fc_out_channels", 1024),
        norm=norm_of(head),
        conv=conv_of(head),
        branches=branches,
        **_codes(head),
    )


def _averaged(head: Settings, classes: Classes) -> BoxHead:
    """A head without layers of its own on the average of the region."""
    head.only("with_avg_pool", True, default=False)
    head.ignored("roi_feat_size")
    return BoxHead(num_classes=_count(head, classes), in_channels=head.take("in_channels", 256), fcs=0, **_codes(head))


def _double_box(head: Settings, classes: Classes) -> DoubleBoxHead:
    head.only("with_avg_pool", True)
    head.only("conv_cfg", None)
    head.only("norm_cfg", {"type": "BN"})
    return DoubleBoxHead(
        num_classes=_count(head, classes),
        in_channels=head.take("in_channels", 256),
        channels=head.take("conv_out_channels", 1024),
        fc_channels=head.take("fc_out_channels", 1024),
        roi_size=head.take("roi_feat_size", 7),
        convs=head.take("num_convs"),
        fcs=head.take("num_fcs"),
        **_codes(head),
    )


def _sabl_box(head: Settings, classes: Classes) -> SABLHead:
    channels = head.take("cls_in_channels", 256)
    for key in ("reg_in_channels", "reg_offset_out_channels", "reg_cls_out_channels"):
        head.only(key, channels, default=256)
    for key, value in (
        ("reg_feat_up_ratio", 2),
        ("reg_pre_kernel", 3),
        ("reg_post_kernel", 3),
        ("reg_pre_num", 2),
        ("reg_post_num", 1),
        ("num_reg_fcs", 0),
        ("reg_class_agnostic", True),
        ("norm_cfg", None),
    ):
        head.only(key, value)
    coder = bucket_coder(head)
    head.only("roi_feat_size", coder.count, default=7)
    return SABLHead(
        num_classes=_count(head, classes),
        scale=coder.scale,
        buckets=coder.count,
        channels=channels,
        class_layers=head.take("num_cls_fcs", 1),
        fc_channels=head.take("cls_out_channels", 1024),
        class_loss=class_loss(head),
        offset_loss=smooth_l1(head, "loss_bbox_reg"),
        bucket_weight=sigmoid_weight(head, "loss_bbox_cls"),
    )


BOX_HEADS: dict[str, Callable[[Settings, Classes], RegionHead]] = {
    "Shared2FCBBoxHead": partial(_layered, fcs=2),
    "Shared4Conv1FCBBoxHead": partial(_layered, convs=4, fcs=1),
    "ConvFCBBoxHead": _layered,
    "SCNetBBoxHead": _layered,
    "BBoxHead": _averaged,
    "DoubleConvFCBBoxHead": _double_box,
    "SABLHead": _sabl_box,
}


def mask_head(head: Settings, classes: Classes, rule: Settings, extractor: Settings) -> nn.Module:
    """What makes masks of regions; ``rule`` names the size that it is trained on."""
    kind = head.take("type")
    if kind not in MASK_HEADS:
        raise head.untranslated("type", f"expected {', '.join(MASK_HEADS)}")
    head.ignored("init_cfg")
    size = extractor.part("roi_layer")["output_size"]
    # The logits are twice as large as the region, or half as large where they are coarse.
    rule.only("mask_size", size // 2 if kind == "CoarseMaskHead" else 2 * size)
    return MASK_HEADS[kind](head, classes, size)


def _mask_weight(head: Settings, key: str = "loss_mask") -> float:
    loss = head.part(key)
    loss.only("type", "CrossEntropyLoss")
    loss.only("use_mask", True, default=False)
    return loss.take("loss_weight", 1.0)


def _fcn_layers(head: Settings) -> dict[str, Any]:
    head.ignored("roi_feat_size")
    head.only("conv_kernel_size", 3)
    head.only("predictor_cfg", None, {"type": "Conv"})
    return {
        "in_channels": head.take("in_channels", 256),
        "channels": head.take("conv_out_channels", 256),
        "convs": head.take("num_convs", 4),
        "upsample": _upsample(head),
        "class_agnostic": head.take("class_agnostic", False),
        "loss_weight": _mask_weight(head),
        "norm": norm_of(head),
        "conv": conv_of(head),
    }


def _fcn(head: Settings, classes: Classes, size: int) -> FCNMaskHead:
    return FCNMaskHead(num_classes=_count(head, classes), **_fcn_layers(head))


def _htc_masks(head: Settings, classes: Classes, size: int) -> HTCMaskHead:
    follows = head.take("with_conv_res", True)
    return HTCMaskHead(num_classes=_count(head, classes), follows=follows, **_fcn_layers(head))


def _scnet_masks(head: Settings, classes: Classes, size: int) -> SCNetMaskHead:
    layers = _fcn_layers(head)
    head.only("conv_to_res", True)
    plain = {"in_channels": layers["channels"], "upsample": None, "class_agnostic": False, "norm": None}
    for key, value in plain.items():
        if layers[key] != value:
            raise head.untranslated({"norm": "norm_cfg", "upsample": "upsample_cfg"}.get(key, key))
    if layers["conv"] is not nn.Conv2d:
        raise head.untranslated("conv_cfg")
    return SCNetMaskHead(
        num_classes=_count(head, classes),
        channels=layers["channels"],
        pairs=layers["convs"] // 2,
        loss_weight=layers["loss_weight"],
    )


def _coarse(head: Settings, classes: Classes, size: int) -> CoarseMaskHead:
    for key, value in (
        ("num_convs", 0),
        ("downsample_factor", 2),
        ("class_agnostic", False),
        ("norm_cfg", None),
        ("conv_cfg", None),
    ):
        head.only(key, value)
    head.only("roi_feat_size", size, default=14)
    return CoarseMaskHead(
        num_classes=_count(head, classes),
        in_channels=head.take("in_channels", 256),
        channels=head.take("conv_out_channels", 256),
        roi_size=size,
        fcs=head.take("num_fcs", 2),
        fc_channels=head.take("fc_out_channels", 1024),
        loss_weight=_mask_weight(head),
    )


MASK_HEADS: dict[str, Callable[[Settings, Classes, int], nn.Module]] = {
    "FCNMaskHead": _fcn,
    "HTCMaskHead": _htc_masks,
    "SCNetMaskHead": _scnet_masks,
    "CoarseMaskHead": _coarse,
}


def _upsample(head: Settings) -> Callable[[int, int], nn.Module] | None:
    if "upsample_cfg" not in head:
        return None
    upsample = head.part("upsample_cfg")
    kind = upsample.only("type", "deconv", "carafe", default=())
    upsample.only("scale_factor", 2)
    if kind == "deconv":
        return None
    plain_carafe(upsample)
    return carafe_upsample


REGION_HEADS: dict[str, Callable[[Settings, Classes, Settings, Settings], RoIHead]] = {
    "StandardRoIHead": _standard,
    "CascadeRoIHead": _cascade,
    "HybridTaskCascadeRoIHead": _htc,
    "SCNetRoIHead": _scnet,
    "MaskScoringRoIHead": _mask_scoring,
    "PointRendRoIHead": _point_rend,
    "GridRoIHead": _grid,
    "DoubleHeadRoIHead": _double,
    "DynamicRoIHead": _dynamic,
    "PISARoIHead": _pisa,
    "TridentRoIHead": _trident,
}
