"""Small parts by their MMDetection names: normalization, losses, anchors, coders, assigners, samplers, suppression.

Defaults are those of MMDetection 2.28 where a configuration leaves a key out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from ..assigners import ATSSAssigner, MaxIoUAssigner
from ..coders import BoxCoder, DeltaCoder
from ..layers import DeformConv2d, ModulatedDeformConv2d, Norm
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
from ..priors import AnchorGrid, anchor_grid, octave_scales
from ..samplers import AllSampler, BalancedSampler, RandomSampler, Sampler
from ..settings import ProposalSettings, RoITest, SoftNMS
from .settings import Settings


def norm_of(owner: Settings, key: str = "norm_cfg", default: Norm | None = None) -> Norm | None:
    """The normalization of ``norm_cfg``."""
    if owner.get(key) is None:
        owner.ignored(key)
        return default
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
    settings.only("deform_groups", 1)
    settings.only("fallback_on_stride", False)
    return DeformConv2d if settings.only("type", "DCN", "DCNv2", default="DCN") == "DCN" else ModulatedDeformConv2d


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


def delta_coder(owner: Settings, key: str = "bbox_coder", **defaults: tuple[float, ...]) -> BoxCoder:
    """The coder of centre and size deltas; ``means`` and ``stds``: where the head is given none."""
    if key not in owner:
        return DeltaCoder(**defaults)  # type: ignore[arg-type]
    coder = owner.part(key)
    coder.only("type", "DeltaXYWHBBoxCoder")
    limit = coder.take("ctr_clamp", 32) if coder.take("add_ctr_clamp", False) else None
    coder.ignored("ctr_clamp")
    return DeltaCoder(
        means=tuple(coder.take("target_means", (0.0,) * 4)),
        stds=tuple(coder.take("target_stds", (1.0,) * 4)),
        clip=coder.take("clip_border", True),
        center_limit=limit,
    )


def anchors_of(owner: Settings, key: str = "anchor_generator") -> AnchorGrid:
    """The anchors of an ``AnchorGenerator``."""
    generator = owner.part(key)
    generator.only("type", "AnchorGenerator")
    generator.only("centers", None)
    generator.only("center_offset", 0.0, 0)
    if generator.get("scales") is not None:
        scales = generator.take("scales")
        generator.only("octave_base_scale", None)
        generator.only("scales_per_octave", None)
    else:
        scales = octave_scales(generator.take("octave_base_scale"), generator.take("scales_per_octave"))
        generator.ignored("scales")
    return anchor_grid(
        strides_of(generator),
        scales=tuple(scales),
        ratios=tuple(generator.take("ratios")),
        base_sizes=generator.take("base_sizes", None),
        ratio_major=generator.take("scale_major", True),
    )


def strides_of(owner: Settings, key: str = "strides") -> tuple[int, ...]:
    """Strides of levels; a pair of equal numbers is one."""
    strides = owner.take(key)
    for stride in strides:
        if isinstance(stride, (list, tuple)) and len(set(stride)) != 1:
            raise owner.untranslated(key, "expected equal strides in both directions")
    return tuple(stride[0] if isinstance(stride, (list, tuple)) else stride for stride in strides)


def max_iou_assigner(owner: Settings, key: str = "assigner") -> MaxIoUAssigner:
    """The assigner by overlap."""
    rule = owner.part(key)
    rule.only("type", "MaxIoUAssigner")
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


def sampler_of(owner: Settings, key: str = "sampler") -> Sampler:
    """How many positives and negatives are trained on."""
    if key not in owner:
        return AllSampler()
    rule = owner.part(key)
    kind = rule.only("type", "RandomSampler", "PseudoSampler", "CombinedSampler")
    if kind == "PseudoSampler":
        return AllSampler()
    shared: dict[str, Any] = {"num": rule.take("num"), "pos_fraction": rule.take("pos_fraction")}
    shared |= {"neg_pos_ub": rule.take("neg_pos_ub", -1), "add_ground_truth": rule.take("add_gt_as_proposals", True)}
    if kind == "RandomSampler":
        return RandomSampler(**shared)
    rule.part("pos_sampler").only("type", "InstanceBalancedPosSampler")
    negative = rule.part("neg_sampler")
    negative.only("type", "IoUBalancedNegSampler")
    negative.only("floor_thr", -1)
    negative.only("floor_fraction", 0)
    return BalancedSampler(**shared, bins=negative.take("num_bins", 3))


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
