"""Small parts by their MMDetection names: normalization, losses, anchors, coders, assigners, samplers, suppression.

Defaults are those of MMDetection 2.28 where a configuration leaves a key out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ..assigners import ATSSAssigner, MaxIoUAssigner
from ..coders import DeltaCoder
from ..dense.towers import Tower
from ..layers import GN, DeformConv2d, ModulatedDeformConv2d, Norm
from ..layers.weight_standardization import WSConv2d
from ..losses import (
    BalancedL1Loss,
    BinaryCrossEntropy,
    BoundedIoULoss,
    BoxLoss,
    CIoULoss,
    CrossEntropy,
    DIoULoss,
    FocalLoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    SmoothL1Loss,
)
from ..losses.iou import OverlapLoss
from ..methods.guided_anchoring import AnchorGuide
from ..methods.legacy import LegacyDeltaCoder, legacy_anchors
from ..methods.sabl import BucketCoder
from ..priors import AnchorGrid, anchor_grid, octave_scales
from ..samplers import AllSampler, BalancedSampler, OHEMSampler, RandomSampler
from ..settings import ProposalSettings, RoITest, SoftNMS
from .settings import Settings


def norm_of(owner: Settings, key: str = "norm_cfg", default: Norm | None = None) -> Norm | None:
    """The normalization of ``norm_cfg``."""
    if owner.get(key) is None:
        owner.ignored(key)
        # Where it is said that there is none, there is none.
        return None if key in owner else default
    norm = owner.part(key)
    kind = norm.only("type", "BN", "SyncBN", "MMSyncBN", "GN", "BN2d", default="BN")
    trainable = norm.take("requires_grad", True)
    eps = norm.take("eps", 1e-5)
    if kind == "GN":
        return Norm("gn", groups=norm.take("num_groups"), trainable=trainable, eps=eps)
    return Norm("bn", trainable=trainable, eps=eps, momentum=norm.take("momentum", 0.1))


def conv_of(owner: Settings, key: str = "conv_cfg") -> Callable[..., nn.Module]:
    """The convolution of ``conv_cfg``."""
    if owner.get(key) is None:
        owner.ignored(key)
        return nn.Conv2d
    conv = owner.part(key)
    return WSConv2d if conv.only("type", "ConvWS", "Conv", "Conv2d", default="Conv") == "ConvWS" else nn.Conv2d


def deformable(settings: Settings) -> Callable[..., nn.Module]:
    """The deformable convolution of a ``dcn`` or ``conv_cfg``."""
    settings.only("fallback_on_stride", False)
    groups = settings.take("deform_groups", 1)
    kind = settings.only("type", "DCN", "DCNv2", default="DCN")
    build = DeformConv2d if kind == "DCN" else ModulatedDeformConv2d
    return build if groups == 1 else partial(build, offset_groups=groups)


def class_loss(
    owner: Settings, key: str = "loss_cls", *, reduction: str = "mean"
) -> CrossEntropy | BinaryCrossEntropy | FocalLoss:
    """The classification loss, by softmax or sigmoid; ``reduction``: the one that the head expects."""
    loss = owner.part(key)
    kind = loss.only("type", "CrossEntropyLoss", "FocalLoss")
    loss.only("reduction", reduction, default=reduction)
    weight = loss.take("loss_weight", 1.0)
    if kind == "FocalLoss":
        loss.only("use_sigmoid", True)
        return FocalLoss(gamma=loss.take("gamma", 2.0), alpha=loss.take("alpha", 0.25), weight=weight)
    loss.only("class_weight", None)
    loss.only("use_mask", False)
    sigmoid = loss.only("use_sigmoid", False, True)
    return BinaryCrossEntropy(weight) if sigmoid else CrossEntropy(weight)


def sigmoid_weight(owner: Settings, key: str) -> float:
    """The weight of a sigmoid cross-entropy such as ``loss_centerness``."""
    if key not in owner:
        return 1.0
    loss = owner.part(key)
    loss.only("type", "CrossEntropyLoss")
    loss.only("use_sigmoid", True)
    return loss.take("loss_weight", 1.0)


def sigmoid_loss(owner: Settings, key: str = "loss_cls") -> BinaryCrossEntropy | FocalLoss:
    """The classification loss of a head whose classes are told apart by sigmoid."""
    loss = class_loss(owner, key)
    if isinstance(loss, CrossEntropy):
        raise owner.untranslated(key, "expected a loss by sigmoid")
    return loss


def focal_loss(owner: Settings, key: str = "loss_cls", *, reduction: str = "mean") -> FocalLoss:
    """The focal loss of a head that knows no other."""
    loss = class_loss(owner, key, reduction=reduction)
    if not isinstance(loss, FocalLoss):
        raise owner.untranslated(key, "expected FocalLoss")
    return loss


def overlap_loss(owner: Settings, key: str = "loss_bbox") -> OverlapLoss:
    """The loss of boxes of a head that compares boxes."""
    loss = box_loss(owner, key)
    if not isinstance(loss, OverlapLoss):
        raise owner.untranslated(key, "expected a loss of overlap")
    return loss


def smooth_l1(owner: Settings, key: str = "loss_bbox") -> SmoothL1Loss:
    """The loss of codes of a head that knows no other."""
    loss = box_loss(owner, key)
    if not isinstance(loss, SmoothL1Loss):
        raise owner.untranslated(key, "expected SmoothL1Loss")
    return loss


def box_loss(
    owner: Settings, key: str = "loss_bbox", *, decoded: bool | None = None, reduction: str = "mean"
) -> BoxLoss:
    """The loss of boxes; decoded: whether the head must compare boxes rather than codes, where it is known."""
    loss = owner.part(key)
    kind = loss.only("type", *BOX_LOSSES)
    loss.only("reduction", reduction, default=reduction)
    made = BOX_LOSSES[kind](loss, loss.take("loss_weight", 1.0))
    if decoded is not None and made.on_boxes is not decoded:
        raise owner.untranslated(key, f"{kind} with reg_decoded_bbox={decoded}")
    return made


def _iou_loss(loss: Settings, weight: float) -> BoxLoss:
    mode = "linear" if loss.take("linear", False) else loss.only("mode", "log", "linear")
    loss.ignored("mode")
    return IoULoss(shape=mode, eps=loss.take("eps", 1e-6), weight=weight)


BOX_LOSSES: dict[str, Callable[[Settings, float], BoxLoss]] = {
    "L1Loss": lambda loss, weight: L1Loss(weight),
    "SmoothL1Loss": lambda loss, weight: SmoothL1Loss(loss.take("beta", 1.0), weight),
    "BalancedL1Loss": lambda loss, weight: BalancedL1Loss(
        loss.take("alpha", 0.5), loss.take("gamma", 1.5), loss.take("beta", 1.0), weight
    ),
    "IoULoss": _iou_loss,
    "GIoULoss": lambda loss, weight: GIoULoss(loss.take("eps", 1e-6), weight),
    "DIoULoss": lambda loss, weight: DIoULoss(loss.take("eps", 1e-6), weight),
    "CIoULoss": lambda loss, weight: CIoULoss(loss.take("eps", 1e-6), weight),
    "BoundedIoULoss": lambda loss, weight: BoundedIoULoss(loss.take("beta", 0.2), loss.take("eps", 1e-3), weight),
}


def distance_coder(owner: Settings, key: str = "bbox_coder") -> None:
    """Requires the distances from points that the heads without anchors have."""
    if key in owner:
        coder = owner.part(key)
        coder.only("type", "DistancePointBBoxCoder")
        coder.only("clip_border", True)


def bucket_coder(owner: Settings, key: str = "bbox_coder") -> BucketCoder:
    """The buckets of SABL."""
    coder = owner.part(key)
    coder.only("type", "BucketingBBoxCoder")
    coder.only("offset_topk", 2)
    coder.only("offset_upperbound", 1.0, 1)
    coder.only("cls_ignore_neighbor", True)
    coder.only("clip_border", True)
    buckets = coder.take("num_buckets")
    if buckets % 2:
        raise coder.untranslated("num_buckets", "expected an even number")
    return BucketCoder(coder.take("scale_factor"), buckets // 2)


def delta_coder(owner: Settings, key: str = "bbox_coder", **defaults: tuple[float, ...]) -> DeltaCoder:
    """The coder of centre and size deltas; ``means`` and ``stds``: where the head is given none."""
    if key not in owner:
        return DeltaCoder(**defaults)  # type: ignore[arg-type]
    coder = owner.part(key)
    codes: dict[str, Any] = {
        "means": tuple(coder.take("target_means", (0.0,) * 4)),
        "stds": tuple(coder.take("target_stds", (1.0,) * 4)),
    }
    if coder.only("type", "DeltaXYWHBBoxCoder", "LegacyDeltaXYWHBBoxCoder") == "LegacyDeltaXYWHBBoxCoder":
        return LegacyDeltaCoder(**codes)
    limit = coder.take("ctr_clamp", 32) if coder.take("add_ctr_clamp", False) else None
    coder.ignored("ctr_clamp")
    return DeltaCoder(**codes, clip=coder.take("clip_border", True), center_limit=limit)


def anchors_of(owner: Settings, key: str = "anchor_generator") -> AnchorGrid:
    """The anchors of an ``AnchorGenerator``, or of one of the first generation."""
    generator = owner.part(key)
    legacy = generator.only("type", "AnchorGenerator", "LegacyAnchorGenerator") == "LegacyAnchorGenerator"
    if generator.get("scales") is not None:
        scales = generator.take("scales")
        generator.only("octave_base_scale", None)
        generator.only("scales_per_octave", None)
    else:
        scales = octave_scales(generator.take("octave_base_scale"), generator.take("scales_per_octave"))
        generator.ignored("scales")
    strides, ratios = strides_of(generator), tuple(generator.take("ratios"))
    if legacy:
        for name, value in (("centers", None), ("base_sizes", None), ("scale_major", True)):
            generator.only(name, value)
        generator.only("center_offset", 0.5, default=0.0)
        return legacy_anchors(strides, tuple(scales), ratios)
    sizes = generator.take("base_sizes", None)
    offset, centers = generator.take("center_offset", 0.0), generator.take("centers", None)
    if offset:
        if centers is not None:
            raise generator.untranslated("center_offset", "expected centers or an offset, not both")
        centers = [(offset * size, offset * size) for size in sizes or strides]
    return anchor_grid(
        strides,
        scales=tuple(scales),
        ratios=ratios,
        base_sizes=sizes,
        centers=None if centers is None else [(x, y) for x, y in centers],
        ratio_major=generator.take("scale_major", True),
    )


def single_anchors(owner: Settings, key: str = "anchor_generator") -> AnchorGrid:
    """Anchors of which each location has one."""
    anchors = anchors_of(owner, key)
    if set(anchors.anchors_per_location) != {1}:
        raise owner.untranslated(key, "expected one anchor for each location")
    return anchors


def squares_of(owner: Settings, key: str) -> tuple[AnchorGrid, float]:
    """Squares of one scale in strides, one at each location, and that scale."""
    squares = single_anchors(owner, key)
    generator = owner.part(key)
    scales = generator.get("scales")
    if not scales or generator.get("base_sizes") is not None or list(generator["ratios"]) != [1.0]:
        raise owner.untranslated(key, "expected squares of one scale")
    return squares, scales[0]


def anchor_guide(head: Settings, rule: Settings) -> AnchorGuide:
    """Guided anchors from a head's settings and those of its training."""
    approximate, (square, scale) = (
        anchors_of(head, "approx_anchor_generator"),
        squares_of(head, "square_anchor_generator"),
    )
    if approximate.strides != square.strides:
        raise head.untranslated("approx_anchor_generator", f"the squares have strides {square.strides}")
    parts: dict[str, Any] = {}
    if "loss_shape" in head:
        loss = box_loss(head, "loss_shape")
        if not isinstance(loss, BoundedIoULoss):
            raise head.untranslated("loss_shape", "expected BoundedIoULoss")
        parts = {"shape_loss": loss}
    if "ga_sampler" in rule:
        parts |= {"sampler": sampler_of(rule, "ga_sampler")}
    coder = delta_coder(head, "anchor_coder")
    if any(coder.means):
        raise head.untranslated("anchor_coder", "expected means of zero")
    return AnchorGuide(
        strides=tuple(int(stride) for stride in square.square_strides),
        scale=scale,
        rule=max_iou_assigner(rule, "ga_assigner", kind="ApproxMaxIoUAssigner"),
        coder=coder,
        sampled=approximate,
        core=rule.take("center_ratio", 0.2),
        ring=rule.take("ignore_ratio", 0.5),
        location_loss=focal_loss(head, "loss_loc"),
        least_score=head.take("loc_filter_thr", 0.01),
        **parts,
    )


def anchor_training(train: Settings) -> None:
    """The settings of anchor heads that must be the common ones."""
    train.only("allowed_border", -1, default=-1)
    train.only("pos_weight", -1, default=-1)
    train.ignored("debug")


def tower_of(head: Settings, norm: Norm | None, **options: Any) -> Tower:
    """The towers of a head."""
    return Tower(
        in_channels=head.take("in_channels"),
        channels=head.take("feat_channels", 256),
        depth=head.take("stacked_convs", 4),
        norm=norm,
        **options,
    )


def last_deformed(head: Settings) -> Tower:
    """The towers of FCOS and VFNet, whose last convolution may be deformable."""
    head.only("conv_cfg", None)
    bias = head.take("conv_bias", "auto")
    last = {"last_conv": ModulatedDeformConv2d} if head.take("dcn_on_last_conv", False) else {}
    return tower_of(head, norm_of(head, default=GN), bias=None if bias == "auto" else bias, **last)


def strides_of(owner: Settings, key: str = "strides") -> tuple[int, ...]:
    """Strides of levels; a pair of equal numbers is one."""
    strides = owner.take(key)
    for stride in strides:
        if isinstance(stride, (list, tuple)) and len(set(stride)) != 1:
            raise owner.untranslated(key, "expected equal strides in both directions")
    return tuple(stride[0] if isinstance(stride, (list, tuple)) else stride for stride in strides)


def max_iou_assigner(owner: Settings, key: str = "assigner", *, kind: str = "MaxIoUAssigner") -> MaxIoUAssigner:
    """The assigner by overlap; ``kind``: the one that the head expects."""
    rule = owner.part(key)
    rule.only("type", kind)
    _plain_overlaps(rule)
    rule.ignored("gpu_assign_thr")
    rule.only("ignore_wrt_candidates", True)
    ignore = rule.take("ignore_iof_thr", -1)
    negative = rule.take("neg_iou_thr")
    return MaxIoUAssigner(
        positive=rule.take("pos_iou_thr"),
        negative=tuple(negative) if isinstance(negative, (list, tuple)) else negative,  # type: ignore[arg-type]
        min_positive=rule.take("min_pos_iou", 0.0),
        match_low_quality=rule.take("match_low_quality", True),
        match_all_best=rule.take("gt_max_assign_all", True),
        ignore=None if ignore is None or ignore < 0 else ignore,
    )


def atss_assigner(owner: Settings, key: str = "assigner") -> ATSSAssigner:
    """The assigner of ATSS."""
    rule = owner.part(key)
    rule.only("type", "ATSSAssigner")
    _plain_overlaps(rule)
    rule.only("ignore_iof_thr", -1)
    rule.only("alpha", None)
    return ATSSAssigner(rule.take("topk"))


def _plain_overlaps(rule: Settings) -> None:
    if rule.get("iou_calculator") is not None:
        overlaps = rule.part("iou_calculator")
        overlaps.only("type", "BboxOverlaps2D")
        overlaps.only("scale", 1.0, 1)
        overlaps.only("dtype", None)
    else:
        rule.ignored("iou_calculator")


def sampler_of(owner: Settings, key: str = "sampler", *, by_loss: str | None = None) -> Any:
    """How many positives and negatives are trained on; by_loss: the sampler that looks at losses which the head can
    also do with."""
    if key not in owner:
        return AllSampler()
    rule = owner.part(key)
    kinds = ("RandomSampler", "PseudoSampler", "CombinedSampler")
    kind = rule.only("type", *kinds if by_loss is None else (*kinds, by_loss))
    if kind == "PseudoSampler":
        return AllSampler()
    shared: dict[str, Any] = {"num": rule.take("num"), "pos_fraction": rule.take("pos_fraction")}
    shared |= {"neg_pos_ub": rule.take("neg_pos_ub", -1), "add_ground_truth": rule.take("add_gt_as_proposals", True)}
    if kind in ("RandomSampler", "ScoreHLRSampler"):
        # What else the second of the two has is read by the head that ranks.
        return RandomSampler(**shared)
    if kind == "OHEMSampler":
        rule.only("loss_key", "loss_cls")
        return OHEMSampler(**shared)
    rule.part("pos_sampler").only("type", "InstanceBalancedPosSampler")
    negative = rule.part("neg_sampler")
    negative.only("type", "IoUBalancedNegSampler")
    negative.only("floor_thr", -1)
    negative.only("floor_fraction", 0)
    return BalancedSampler(**shared, bins=negative.take("num_bins", 3))


def importance(train: Settings) -> None:
    """The reweighting of PISA, whose numbers are those of its paper."""
    for key, numbers in (("isr", {"k": 2, "bias": 0}), ("carl", {"k": 1, "bias": 0.2})):
        for name, value in numbers.items():
            train.part(key).only(name, value)


def plain_carafe(upsample: Settings) -> None:
    """Requires the numbers of the CARAFE paper, which are the ones that are built."""
    for key, value in (
        ("up_kernel", 5),
        ("up_group", 1),
        ("encoder_kernel", 3),
        ("encoder_dilation", 1),
        ("compressed_channels", 64),
    ):
        upsample.only(key, value)


def suppression(test: Settings) -> dict[str, Any]:
    """``nms_threshold`` and ``soft_nms`` of an ``nms`` setting."""
    nms = test.part("nms")
    kind = nms.only("type", "nms", "soft_nms", default="nms")
    nms.only("class_agnostic", False)
    nms.ignored("split_thr")
    threshold = nms.take("iou_threshold", 0.3) if "iou_thr" not in nms else nms.take("iou_thr")
    if kind == "nms":
        return {"nms_threshold": threshold}
    soft = SoftNMS(
        method=nms.only("method", "linear", "gaussian"),
        sigma=nms.take("sigma", 0.5),
        min_score=nms.take("min_score", 1e-3),
    )
    return {"nms_threshold": threshold, "soft_nms": soft}


def dense_test(test: Settings) -> dict[str, Any]:
    """The fields of ``DenseTest`` that a ``test_cfg`` gives."""
    test.only("min_bbox_size", 0, default=0)
    limit = test.take("nms_pre", -1)
    return {
        "score_threshold": test.take("score_thr"),
        "max_per_image": test.take("max_per_img"),
        "candidates_per_level": sys.maxsize if limit is None or limit < 0 else limit,
        **suppression(test),
    }


def roi_test(test: Settings, masks: bool) -> RoITest:
    """The settings of ``test_cfg.rcnn``."""
    threshold = test.take("mask_thr_binary", 0.5)
    if masks and threshold < 0:
        raise test.untranslated("mask_thr_binary", "expected a probability")
    return RoITest(
        score_threshold=test.take("score_thr"),
        max_per_image=test.take("max_per_img"),
        mask_threshold=threshold,
        **suppression(test),
    )


def proposals_of(settings: Settings) -> ProposalSettings:
    """The settings of ``rpn_proposal`` or ``test_cfg.rpn``, in the words of 2.x or those before."""
    settings.only("nms_across_levels", False)
    settings.ignored("nms_post")
    most = settings.take("max_per_img" if "max_per_img" in settings else "max_num")
    if "nms" in settings:
        threshold = suppression(settings)
        if "soft_nms" in threshold:
            raise settings.untranslated("nms", "expected nms for proposals")
    else:
        threshold = {"nms_threshold": settings.take("nms_thr")}
    settings.ignored("max_num", "nms_thr")
    limit = settings.take("nms_pre", -1)
    return ProposalSettings(
        candidates_per_level=sys.maxsize if limit < 0 else limit,
        max_per_image=most,
        min_size=settings.take("min_bbox_size", 0),
        **threshold,
    )
