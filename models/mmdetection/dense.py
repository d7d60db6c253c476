"""Single-stage detectors by their MMDetection names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..assigners import MaxIoUAssigner
from ..assigners.grid import GridAssigner
from ..coders import TBLRCoder
from ..dense.head import DenseHead
from ..dense.towers import Tower
from ..detectors.single_stage import SingleStageDetector
from ..layers import GN, ModulatedDeformConv2d, Norm
from ..losses import FocalLoss
from ..losses.iou import OverlapLoss
from ..methods.atss import ATSSHead
from ..methods.fcos import RANGES, FCOSHead
from ..methods.fsaf import FSAFHead
from ..methods.gfl import GFLHead
from ..methods.paa import PAAHead, PAATest
from ..methods.retinanet import RetinaHead
from ..methods.ssd import SSDHead
from ..methods.vfnet import VFNetHead
from ..methods.yolov3 import YoloTest, YOLOV3Head, yolo_anchors
from ..priors import AnchorGrid, base_anchors
from ..settings import DenseTest
from .backbones import backbone_of
from .necks import neck_of
from .parts import (
    anchors_of,
    atss_assigner,
    box_loss,
    class_loss,
    delta_coder,
    dense_test,
    max_iou_assigner,
    norm_of,
    sampler_of,
    sigmoid_weight,
    strides_of,
)
from .settings import Settings

CODES = {"means": (0.0,) * 4, "stds": (0.1, 0.1, 0.2, 0.2)}
"""What MMDetection gives ATSS and PAA where a configuration names no coder."""


def single_stage(model: Settings, num_classes: int | None) -> SingleStageDetector:
    """A backbone, a neck and one dense head; ``num_classes``: instead of the head's own."""
    head = model.part("bbox_head")
    kind = head.take("type")
    if kind not in HEADS:
        raise head.untranslated("type", f"expected {', '.join(HEADS)}")
    head.ignored("init_cfg")
    count = head.take("num_classes", 80)
    backbone = backbone_of(model)
    neck = neck_of(model, backbone)
    if neck is None:
        raise model.untranslated("neck", "expected a neck")
    train = model.take("train_cfg", None)
    train = train if isinstance(train, Settings) else Settings({"pos_weight": -1}, file=model.file)
    made, test = HEADS[kind](head, count if num_classes is None else num_classes, train, model.part("test_cfg"), neck)
    return SingleStageDetector(backbone=backbone, neck=neck, bbox_head=made, test=test)


def _anchor_training(train: Settings) -> None:
    """The settings of anchor heads that must be the common ones."""
    train.only("allowed_border", -1, default=-1)
    train.only("pos_weight", -1, default=-1)
    train.ignored("debug")


def _tower(head: Settings, norm: Norm | None, **options: Any) -> Tower:
    return Tower(
        in_channels=head.take("in_channels"),
        channels=head.take("feat_channels", 256),
        depth=head.take("stacked_convs", 4),
        norm=norm,
        **options,
    )


def _decoded(head: Settings) -> bool:
    return head.take("reg_decoded_bbox", False)


def _retina(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    _anchor_training(train)
    head.only("conv_cfg", None)
    made = RetinaHead(
        num_classes=classes,
        in_channels=head.take("in_channels"),
        channels=head.take("feat_channels", 256),
        depth=head.take("stacked_convs", 4),
        norm=norm_of(head),
        anchors=anchors_of(head),
        coder=delta_coder(head),
        assigner=max_iou_assigner(train),
        class_loss=class_loss(head),
        box_loss=box_loss(head, decoded=_decoded(head)),
    )
    made.sampler = sampler_of(train)  # type: ignore[assignment]
    return made, DenseTest(**dense_test(test))


def _fsaf(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    _anchor_training(train)
    for key, value in (("in_channels", 256), ("feat_channels", 256), ("stacked_convs", 4), ("reg_decoded_bbox", True)):
        head.only(key, value)
    coder = head.part("bbox_coder")
    coder.only("type", "TBLRBBoxCoder")
    rule = train.part("assigner")
    rule.only("type", "CenterRegionAssigner")
    rule.only("pos_scale", 0.2)
    rule.only("min_pos_iof", 0.01)
    made = FSAFHead(num_classes=classes, shadow=rule.take("neg_scale", 0.2))
    made.anchors, made.coder = anchors_of(head), TBLRCoder(unit=coder.take("normalizer", 4.0))
    if made.anchors.anchors_per_location[0] != 1:
        raise head.untranslated("anchor_generator", "expected one anchor for each location")
    # The head of FSAF chooses among the losses of single anchors.
    made.focal_loss = _focal(head, reduction="none")
    loss = box_loss(head, decoded=True, reduction="none")
    if not isinstance(loss, OverlapLoss):
        raise head.untranslated("loss_bbox", "expected a loss of overlap")
    made.iou_loss = loss  # type: ignore[assignment]
    return made, DenseTest(**dense_test(test))


def _focal(head: Settings, reduction: str = "mean") -> FocalLoss:
    loss = class_loss(head, reduction=reduction)
    if not isinstance(loss, FocalLoss):
        raise head.untranslated("loss_cls", "expected FocalLoss")
    return loss


def _overlap_loss(head: Settings, key: str = "loss_bbox") -> OverlapLoss:
    loss = box_loss(head, key)
    if not isinstance(loss, OverlapLoss):
        raise head.untranslated(key, "expected a loss of overlap")
    return loss


def _fcos(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    train.only("pos_weight", -1, default=-1)
    train.ignored("assigner", "allowed_border", "debug")
    norm = norm_of(head, default=GN)
    bias = head.take("conv_bias", "auto")
    last = {"last_conv": ModulatedDeformConv2d} if head.take("dcn_on_last_conv", False) else {}
    head.only("conv_cfg", None)
    towers = _tower(head, norm, bias=None if bias == "auto" else bias, **last)
    radius = head.take("center_sample_radius", 1.5)
    strides = strides_of(head)
    made = FCOSHead(
        num_classes=classes,
        channels=towers.channels,
        build_tower=towers,
        normalized=head.take("norm_on_bbox", False),
        center_radius=radius if head.take("center_sampling", False) else None,
        centerness_on_reg=head.take("centerness_on_reg", False),
        strides=strides,
        ranges=[(float(low), float(high)) for low, high in head.take("regress_ranges", RANGES[: len(strides)])],
        class_loss=_focal(head),
        box_loss=_overlap_loss(head),
    )
    if sigmoid_weight(head, "loss_centerness") != 1.0:
        raise head.untranslated("loss_centerness", "expected a weight of 1")
    return made, DenseTest(**dense_test(test))


def _atss(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    _anchor_training(train)
    head.only("conv_cfg", None)
    head.only("reg_decoded_bbox", True, default=True)
    made = ATSSHead(
        num_classes=classes,
        towers=_tower(head, norm_of(head, default=GN)),
        anchors=_single_anchors(head),
        coder=delta_coder(head, **CODES),  # type: ignore[arg-type]
        assigner=atss_assigner(train),
        class_loss=_focal(head),
        box_loss=_overlap_loss(head),
        centerness_weight=sigmoid_weight(head, "loss_centerness"),
    )
    return made, DenseTest(**dense_test(test))


def _single_anchors(head: Settings) -> AnchorGrid:
    anchors = anchors_of(head)
    if set(anchors.anchors_per_location) != {1}:
        raise head.untranslated("anchor_generator", "expected one anchor for each location")
    return anchors


def _paa(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    _anchor_training(train)
    head.only("reg_decoded_bbox", True)
    head.only("topk", 9)
    head.only("covariance_type", "diag")
    rule = max_iou_assigner(train)
    if rule != MaxIoUAssigner(positive=0.1, negative=0.1, min_positive=0.0):
        raise train.untranslated("assigner", "expected candidates from an overlap of 0.1")
    coder = delta_coder(head, **CODES)  # type: ignore[arg-type]
    made = PAAHead(
        num_classes=classes,
        towers=_tower(head, norm_of(head, default=GN)),
        anchors=_single_anchors(head),
        box_loss=_overlap_loss(head),
    )
    made.coder, made.class_loss = coder, _focal(head)  # type: ignore[assignment]
    made.centerness_weight = sigmoid_weight(head, "loss_centerness")
    return made, PAATest(score_voting=head.take("score_voting", True), **dense_test(test))


def _gfl(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    _anchor_training(train)
    head.only("conv_cfg", None)
    quality = head.part("loss_cls")
    for key, value in (("type", "QualityFocalLoss"), ("use_sigmoid", True), ("beta", 2.0), ("loss_weight", 1.0)):
        quality.only(key, value)
    sides = head.part("loss_dfl")
    sides.only("type", "DistributionFocalLoss")
    made = GFLHead(
        num_classes=classes,
        towers=_tower(head, norm_of(head, default=GN)),
        anchors=_single_anchors(head),
        assigner=atss_assigner(train),
        box_loss=_overlap_loss(head),
        side_weight=sides.take("loss_weight", 1.0),
        longest=head.take("reg_max", 16),
    )
    return made, DenseTest(**dense_test(test))


def _vfnet(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    _anchor_training(train)
    head.only("center_sampling", False, default=False)
    head.only("sync_num_pos", True)
    head.only("gradient_mul", 0.1)
    head.only("bbox_norm_type", "reg_denom")
    head.only("use_atss", True)
    head.only("use_vfl", True)
    head.only("conv_cfg", None)
    head.only("conv_bias", "auto")
    quality = head.part("loss_cls")
    for key, value in (
        ("type", "VarifocalLoss"),
        ("use_sigmoid", True),
        ("alpha", 0.75),
        ("gamma", 2.0),
        ("iou_weighted", True),
        ("loss_weight", 1.0),
    ):
        quality.only(key, value)
    strides = strides_of(head)
    if "anchor_generator" in head:
        anchors = anchors_of(head)
    else:
        anchors = AnchorGrid(strides, [base_anchors(8 * stride, (1.0,), (1.0,)) for stride in strides])
    head.only("regress_ranges", RANGES)
    if strides != (8, 16, 32, 64, 128):
        raise head.untranslated("strides", "expected 8 to 128, by which the distances are measured")
    last = {"last_conv": ModulatedDeformConv2d} if head.take("dcn_on_last_conv", False) else {}
    made = VFNetHead(
        num_classes=classes,
        towers=_tower(head, norm_of(head, default=GN), **last),
        anchors=anchors,
        assigner=atss_assigner(train),
        first_loss=_overlap_loss(head),
        refined_loss=_overlap_loss(head, "loss_bbox_refine"),
    )
    return made, DenseTest(**dense_test(test))


def _yolo(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    generator = head.part("anchor_generator")
    generator.only("type", "YOLOAnchorGenerator")
    strides = strides_of(generator)
    head.only("featmap_strides", strides)
    head.only("one_hot_smoother", 0.0, 0)
    head.only("in_channels", neck.out_channels)
    head.only("out_channels", tuple(2 * c for c in neck.out_channels))
    head.only("norm_cfg", None)
    head.only("act_cfg", None)
    coder = head.part("bbox_coder")
    coder.only("type", "YOLOBBoxCoder")
    for key, kind, weight in (
        ("loss_cls", "CrossEntropyLoss", 1.0),
        ("loss_conf", "CrossEntropyLoss", 1.0),
        ("loss_xy", "CrossEntropyLoss", 2.0),
        ("loss_wh", "MSELoss", 2.0),
    ):
        loss = head.part(key)
        loss.only("type", kind)
        loss.only("reduction", "sum")
        loss.only("loss_weight", weight)
        if kind == "CrossEntropyLoss":
            loss.only("use_sigmoid", True)
    made = YOLOV3Head(
        num_classes=classes,
        in_channels=neck.out_channels,
        anchors=yolo_anchors(strides, [[tuple(size) for size in level] for level in generator.take("base_sizes")]),
    )
    if "assigner" in train:
        rule = train.part("assigner")
        rule.only("type", "GridAssigner")
        rule.only("min_pos_iou", 0, 0.0)
        made.assigner = GridAssigner(rule.take("pos_iou_thr"), rule.take("neg_iou_thr"))
    train.ignored("pos_weight", "debug")
    objectness = test.take("conf_thr", -1)
    return made, YoloTest(objectness_threshold=objectness, **dense_test(test))


def _ssd(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> tuple[DenseHead, DenseTest]:
    head.only("in_channels", neck.out_channels)
    head.only("stacked_convs", 0)
    head.only("use_depthwise", False)
    _decoded_off(head)
    train.only("allowed_border", -1, default=-1)
    train.only("pos_weight", -1, default=-1)
    train.ignored("debug")
    train.only("smoothl1_beta", 1.0, 1, default=1.0)
    made = SSDHead(
        num_classes=classes,
        in_channels=neck.out_channels,
        anchors=_default_boxes(head),
        coder=delta_coder(head),
    )
    if "assigner" in train:
        made.assigner = max_iou_assigner(train)
    made.negative_ratio = train.take("neg_pos_ratio", 3)
    return made, DenseTest(**dense_test(test))


def _decoded_off(head: Settings) -> None:
    head.only("reg_decoded_bbox", False)


def _default_boxes(head: Settings) -> AnchorGrid:
    """The default boxes of an ``SSDAnchorGenerator``: two squares a level, then its ratios lying and standing."""
    generator = head.part("anchor_generator")
    generator.only("type", "SSDAnchorGenerator")
    generator.only("scale_major", False)
    strides, ratios = strides_of(generator), generator.take("ratios")
    if "min_sizes" in generator:
        small, large = generator.take("min_sizes"), generator.take("max_sizes")
    else:
        small, large = _ssd_sizes(generator, len(strides))
    bases = []
    for stride, low, high, level in zip(strides, small, large, ratios, strict=True):
        shapes = [1.0] + [shape for ratio in level for shape in (1 / ratio, float(ratio))]
        boxes = base_anchors(low, (1.0, (high / low) ** 0.5), shapes, ratio_major=False)
        order = [0, len(shapes), *range(1, len(shapes))]
        bases.append(boxes[order] + stride / 2)
    return AnchorGrid(strides, bases)


def _ssd_sizes(generator: Settings, levels: int) -> tuple[list[int], list[int]]:
    """Smaller and larger square of each level, by the range of shares of the input; the first level has its own."""
    size = generator.take("input_size")
    low, high = (int(share * 100) for share in generator.take("basesize_ratio_range"))
    step = (high - low) // (levels - 2)
    percents = list(range(low, high + 1, step))
    first = {(300, 15): (7, 15), (300, 20): (10, 20), (512, 10): (4, 10), (512, 15): (7, 15)}.get((size, low))
    if first is None:
        raise generator.untranslated("basesize_ratio_range", "expected one of MMDetection's for input 300 or 512")
    pairs = [first, *((percent, percent + step) for percent in percents)]
    return [size * a // 100 for a, _ in pairs], [size * b // 100 for _, b in pairs]


HEADS: dict[str, Callable[[Settings, int, Settings, Settings, Any], tuple[DenseHead, DenseTest]]] = {
    "RetinaHead": _retina,
    "FSAFHead": _fsaf,
    "FCOSHead": _fcos,
    "ATSSHead": _atss,
    "PAAHead": _paa,
    "GFLHead": _gfl,
    "VFNetHead": _vfnet,
    "YOLOV3Head": _yolo,
    "SSDHead": _ssd,
}
