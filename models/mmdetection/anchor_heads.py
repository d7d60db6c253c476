"""Dense heads with anchors by their MMDetection names.

A translator takes the head's settings, the class count, the train and test settings and the neck, and gives the head
and its test settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ..assigners.grid import GridAssigner
from ..assigners.uniform import UniformAssigner
from ..coders import TBLRCoder
from ..dense.head import DenseHead
from ..layers import BN, GN
from ..losses import BinaryCrossEntropy, SmoothL1Loss
from ..losses.iou import OverlapLoss
from ..methods.atss import ATSSHead
from ..methods.fcos import RANGES
from ..methods.free_anchor import FreeAnchorHead
from ..methods.fsaf import FSAFHead
from ..methods.gfl import GFLHead
from ..methods.ghm import GHMC, GHMR, GHMHead
from ..methods.guided_anchoring import GARetinaHead
from ..methods.legacy import rounded_inside
from ..methods.nas_fpn import RetinaSepBNHead
from ..methods.paa import PAAHead, PAATest
from ..methods.pisa import PISARetinaHead, PISASSDHead
from ..methods.retinanet import RetinaHead
from ..methods.sabl import SABLRetinaHead
from ..methods.ssd import SSDHead
from ..methods.vfnet import VFNetHead
from ..methods.yolof import YOLOFHead
from ..methods.yolov3 import YoloTest, YOLOV3Head, yolo_anchors
from ..priors import AnchorGrid, base_anchors
from ..settings import DenseTest
from .parts import (
    anchor_guide,
    anchor_training,
    anchors_of,
    atss_assigner,
    box_loss,
    bucket_coder,
    delta_coder,
    dense_test,
    distance_coder,
    focal_loss,
    importance,
    last_deformed,
    max_iou_assigner,
    norm_of,
    overlap_loss,
    sampler_of,
    sigmoid_loss,
    sigmoid_weight,
    single_anchors,
    smooth_l1,
    strides_of,
    tower_of,
)
from .settings import Settings

Made: TypeAlias = tuple[DenseHead, DenseTest]
Translate: TypeAlias = Callable[[Settings, int, Settings, Settings, Any], Made]

CODES = {"means": (0.0,) * 4, "stds": (0.1, 0.1, 0.2, 0.2)}
"""What MMDetection gives ATSS and PAA where a configuration names no coder."""


def _layers(head: Settings, **defaults: Any) -> dict[str, Any]:
    """What all heads with the layers of RetinaNet take from their settings."""
    head.only("conv_cfg", None)
    return {
        "in_channels": head.take("in_channels"),
        "channels": head.take("feat_channels", 256),
        "depth": head.take("stacked_convs", 4),
        "norm": norm_of(head),
        "anchors": anchors_of(head),
        "coder": delta_coder(head, **defaults),
    }


def _retina(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    parts: dict[str, Any] = {**_layers(head), "assigner": max_iou_assigner(train)}
    density = _densities(head)
    loss = density.get("class_loss") or sigmoid_loss(head)
    boxes = density.get("box_loss") or box_loss(head, decoded=head.take("reg_decoded_bbox", False))
    if density and not boxes.on_boxes:
        head.only("reg_decoded_bbox", False)
    build = GHMHead if density else RetinaHead
    made = build(num_classes=classes, class_loss=loss, box_loss=boxes, **parts)
    anchor_training(train)
    if isinstance(loss, BinaryCrossEntropy):
        made.sampler = sampler_of(train)  # type: ignore[assignment]
    else:
        # Losses that weigh examples by themselves look at all of them, whatever the settings say.
        train.ignored("sampler")
    return made, DenseTest(**dense_test(test))


def _densities(head: Settings) -> dict[str, Any]:
    """The losses of GHM where the head has them."""
    found: dict[str, Any] = {}
    if (head.get("loss_cls") or {}).get("type") == "GHMC":
        loss = head.part("loss_cls")
        loss.ignored("type")
        loss.only("use_sigmoid", True)
        found["class_loss"] = GHMC(
            bins=loss.take("bins", 10), momentum=loss.take("momentum", 0), loss_weight=loss.take("loss_weight", 1.0)
        )
    if (head.get("loss_bbox") or {}).get("type") == "GHMR":
        loss = head.part("loss_bbox")
        loss.ignored("type")
        found["box_loss"] = GHMR(
            mu=loss.take("mu", 0.02),
            bins=loss.take("bins", 10),
            momentum=loss.take("momentum", 0),
            loss_weight=loss.take("loss_weight", 1.0),
        )
    return found


def _level_norms(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    parts = _layers(head)
    head.only("num_ins", len(parts["anchors"].strides))
    if parts["norm"] is None:
        raise head.untranslated("norm_cfg", "expected a normalization")
    made = RetinaSepBNHead(
        num_classes=classes,
        assigner=max_iou_assigner(train),
        class_loss=focal_loss(head),
        box_loss=box_loss(head, decoded=head.take("reg_decoded_bbox", False)),
        **parts,
    )
    return made, DenseTest(**dense_test(test))


def _free_anchor(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    # Anchors are matched by the loss itself, which is of these kinds whatever the settings say.
    train.ignored("assigner", "sampler", "allowed_border", "pos_weight", "debug")
    head.ignored("loss_cls")
    head.only("reg_decoded_bbox", False)
    made = FreeAnchorHead(
        num_classes=classes,
        code_loss=smooth_l1(head),
        bag_size=head.take("pre_anchor_topk", 50),
        overlap=head.take("bbox_thr", 0.6),
        alpha=head.take("alpha", 0.5),
        gamma=head.take("gamma", 2.0),
        **_layers(head),
    )
    return made, DenseTest(**dense_test(test))


def _pisa_retina(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    importance(train)
    head.only("reg_decoded_bbox", False)
    made = PISARetinaHead(
        num_classes=classes,
        assigner=max_iou_assigner(train),
        class_loss=focal_loss(head),
        box_loss=smooth_l1(head),
        **_layers(head),
    )
    return made, DenseTest(**dense_test(test))


def _fsaf(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    head.only("reg_decoded_bbox", True)
    head.only("conv_cfg", None)
    coder = head.part("bbox_coder")
    coder.only("type", "TBLRBBoxCoder")
    anchors = single_anchors(head)
    rule: dict[str, Any] = {}
    if "assigner" in train:
        given = train.part("assigner")
        given.only("type", "CenterRegionAssigner")
        given.only("min_pos_iof", 0.01)
        rule = {"core": given.take("pos_scale"), "shadow": given.take("neg_scale")}
    # The head of FSAF chooses among the losses of single anchors.
    loss = box_loss(head, decoded=True, reduction="none")
    if not isinstance(loss, OverlapLoss):
        raise head.untranslated("loss_bbox", "expected a loss of overlap")
    made = FSAFHead(
        num_classes=classes,
        in_channels=head.take("in_channels"),
        channels=head.take("feat_channels", 256),
        depth=head.take("stacked_convs", 4),
        norm=norm_of(head),
        anchors=anchors,
        coder=TBLRCoder(unit=coder.take("normalizer", 4.0), clip=coder.take("clip_border", True)),
        focal_loss=focal_loss(head, reduction="none"),
        iou_loss=loss,
        **rule,
    )
    return made, DenseTest(**dense_test(test))


def _atss(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    head.only("conv_cfg", None)
    head.only("reg_decoded_bbox", True, default=True)
    made = ATSSHead(
        num_classes=classes,
        towers=tower_of(head, norm_of(head, default=GN)),
        anchors=single_anchors(head),
        coder=delta_coder(head, **CODES),  # type: ignore[arg-type]
        assigner=atss_assigner(train),
        class_loss=focal_loss(head),
        box_loss=overlap_loss(head),
        centerness_weight=sigmoid_weight(head, "loss_centerness"),
        kernel_size=head.take("pred_kernel_size", 3),
    )
    return made, DenseTest(**dense_test(test))


def _paa(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    head.only("conv_cfg", None)
    head.only("reg_decoded_bbox", True)
    # Only this kind of mixture is fitted there, too.
    head.only("covariance_type", "diag")
    made = PAAHead(
        num_classes=classes,
        towers=tower_of(head, norm_of(head, default=GN)),
        anchors=single_anchors(head),
        coder=delta_coder(head, **CODES),  # type: ignore[arg-type]
        candidates=max_iou_assigner(train) if "assigner" in train else None,
        class_loss=focal_loss(head),
        box_loss=overlap_loss(head),
        centerness_weight=sigmoid_weight(head, "loss_centerness"),
        per_level=head.take("topk", 9),
        kernel_size=head.take("pred_kernel_size", 3),
    )
    return made, PAATest(score_voting=head.take("score_voting", True), **dense_test(test))


def _gfl(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    head.only("conv_cfg", None)
    distance_coder(head)
    quality = head.part("loss_cls")
    for key, value in (("type", "QualityFocalLoss"), ("use_sigmoid", True), ("beta", 2.0), ("loss_weight", 1.0)):
        quality.only(key, value)
    weight = 0.25
    if "loss_dfl" in head:
        sides = head.part("loss_dfl")
        sides.only("type", "DistributionFocalLoss")
        weight = sides.take("loss_weight", 1.0)
    made = GFLHead(
        num_classes=classes,
        towers=tower_of(head, norm_of(head, default=GN)),
        anchors=single_anchors(head),
        assigner=atss_assigner(train),
        box_loss=overlap_loss(head),
        side_weight=weight,
        longest=head.take("reg_max", 16),
    )
    return made, DenseTest(**dense_test(test))


def _vfnet(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    for key, value in (
        ("center_sampling", False),
        ("sync_num_pos", True),
        ("use_atss", True),
        ("use_vfl", True),
        ("reg_decoded_bbox", True),
    ):
        head.only(key, value)
    # What is not used without them.
    head.ignored("loss_cls_fl", "center_sample_radius")
    distance_coder(head)
    if "loss_cls" in head:
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
        anchors = single_anchors(head)
    else:
        anchors = AnchorGrid(strides, [base_anchors(8 * stride, (1.0,), (1.0,)) for stride in strides])
    if anchors.strides != strides:
        raise head.untranslated("strides", f"the anchors have {anchors.strides}")
    ranges = [high for _, high in head.take("regress_ranges", RANGES)]
    if len(ranges) != len(strides):
        raise head.untranslated("regress_ranges", f"expected one for each of the {len(strides)} strides")
    by_range = head.only("bbox_norm_type", "reg_denom", "stride") == "reg_denom"
    made = VFNetHead(
        num_classes=classes,
        towers=last_deformed(head),
        anchors=anchors,
        assigner=atss_assigner(train),
        first_loss=overlap_loss(head) if "loss_bbox" in head else None,
        refined_loss=overlap_loss(head, "loss_bbox_refine") if "loss_bbox_refine" in head else None,
        units=[*ranges[:-1], 2 * ranges[-2]] if by_range else strides,
        gradient_factor=head.take("gradient_mul", 0.1),
    )
    return made, DenseTest(**dense_test(test))


def _yolof(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    head.only("reg_decoded_bbox", True)
    head.ignored("feat_channels")
    rule = train.part("assigner")
    rule.only("type", "UniformAssigner")
    rule.only("iou_calculator", {"type": "BboxOverlaps2D"})
    made = YOLOFHead(
        num_classes=classes,
        channels=head.take("in_channels"),
        class_convs=head.take("num_cls_convs", 2),
        box_convs=head.take("num_reg_convs", 4),
        norm=norm_of(head, default=BN) or BN,
        anchors=anchors_of(head),
        coder=delta_coder(head),
        assigner=UniformAssigner(
            matches=rule.take("match_times", 4),
            ignore_positive=rule.take("pos_ignore_thr"),
            ignore_negative=rule.take("neg_ignore_thr"),
        ),
        class_loss=focal_loss(head),
        box_loss=overlap_loss(head),
    )
    return made, DenseTest(**dense_test(test))


def _sabl(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    head.only("conv_cfg", None)
    head.only("reg_decoded_bbox", False)
    made = SABLRetinaHead(
        num_classes=classes,
        towers=tower_of(head, norm_of(head)),
        shapes=anchors_of(head, "approx_anchor_generator"),
        squares=single_anchors(head, "square_anchor_generator"),
        coder=bucket_coder(head),
        assigner=max_iou_assigner(train, kind="ApproxMaxIoUAssigner"),
        class_loss=focal_loss(head),
        offset_loss=smooth_l1(head, "loss_bbox_reg"),
        bucket_weight=sigmoid_weight(head, "loss_bbox_cls"),
    )
    return made, DenseTest(**dense_test(test))


def _guided(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    anchor_training(train)
    head.only("conv_cfg", None)
    loss = focal_loss(head)
    made = GARetinaHead(
        num_classes=classes,
        towers=tower_of(head, norm_of(head)),
        guide=anchor_guide(head, train),
        offset_groups=head.take("deform_groups", 4),
        coder=delta_coder(head),
        assigner=max_iou_assigner(train),
        class_loss=loss,
        box_loss=box_loss(head, decoded=head.take("reg_decoded_bbox", False)),
    )
    train.ignored("sampler")
    return made, DenseTest(**dense_test(test))


def _yolo(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
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


def _pisa_ssd(head: Settings, classes: int, train: Settings, test: Settings, neck: Any) -> Made:
    importance(train)
    return _ssd(head, classes, train, test, neck, PISASSDHead)


def _ssd(
    head: Settings,
    classes: int,
    train: Settings,
    test: Settings,
    neck: Any,
    build: Callable[..., SSDHead] = SSDHead,
) -> Made:
    head.only("in_channels", neck.out_channels)
    head.only("stacked_convs", 0)
    head.only("use_depthwise", False)
    # The towers that are not there would have these.
    head.ignored("feat_channels", "conv_cfg", "norm_cfg", "act_cfg")
    head.only("reg_decoded_bbox", False)
    train.only("allowed_border", -1, default=-1)
    train.only("pos_weight", -1, default=-1)
    train.ignored("debug")
    made = build(
        num_classes=classes,
        in_channels=neck.out_channels,
        anchors=_default_boxes(head),
        coder=delta_coder(head),
    )
    if "assigner" in train:
        made.assigner = max_iou_assigner(train)
    made.loss_bbox = SmoothL1Loss(beta=train.take("smoothl1_beta", 1.0))
    made.negative_ratio = train.take("neg_pos_ratio", 3)
    return made, DenseTest(**dense_test(test))


def _default_boxes(head: Settings) -> AnchorGrid:
    """The default boxes of an ``SSDAnchorGenerator``: two squares a level, then its ratios lying and standing."""
    generator = head.part("anchor_generator")
    legacy = generator.only("type", "SSDAnchorGenerator", "LegacySSDAnchorGenerator") == "LegacySSDAnchorGenerator"
    generator.only("scale_major", False, default=True)
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
        bases.append(rounded_inside(boxes[order], (stride - 1) / 2) if legacy else boxes[order] + stride / 2)
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


ANCHOR_HEADS: dict[str, Translate] = {
    "RetinaHead": _retina,
    "RetinaSepBNHead": _level_norms,
    "FreeAnchorRetinaHead": _free_anchor,
    "PISARetinaHead": _pisa_retina,
    "SABLRetinaHead": _sabl,
    "GARetinaHead": _guided,
    "FSAFHead": _fsaf,
    "ATSSHead": _atss,
    "PAAHead": _paa,
    "GFLHead": _gfl,
    "VFNetHead": _vfnet,
    "YOLOFHead": _yolof,
    "YOLOV3Head": _yolo,
    "SSDHead": _ssd,
    "PISASSDHead": _pisa_ssd,
}
