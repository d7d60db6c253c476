"""Two-stage detectors by their MMDetection names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ..detectors.base import Detector
from ..detectors.two_stage import TwoStageDetector
from ..losses import BinaryCrossEntropy
from ..methods.rpn import RPN, RPNHead
from ..roi.box_head import BoxHead
from ..roi.cascade import CascadeRoIHead
from ..roi.extractor import RoIAlign, RoIExtractor
from ..roi.mask_head import FCNMaskHead, carafe_upsample
from ..roi.standard import StandardRoIHead
from .backbones import backbone_of
from .necks import neck_of
from .parts import (
    anchors_of,
    box_loss,
    class_loss,
    conv_of,
    delta_coder,
    max_iou_assigner,
    norm_of,
    plain_carafe,
    proposals_of,
    roi_test,
    sampler_of,
    strides_of,
)
from .settings import Settings


def two_stage(model: Settings, num_classes: int | None) -> TwoStageDetector:
    """A backbone, a neck, a proposal head where there is one, and a head of regions in one stage or several."""
    train, test = model.part("train_cfg"), model.part("test_cfg")
    backbone = backbone_of(model)
    neck = neck_of(model, backbone)
    if model.get("rpn_head") is None:
        model.ignored("rpn_head")
        proposals = None
    else:
        proposals = _rpn(model.part("rpn_head"), train, test)
    head = model.part("roi_head")
    kind = head.take("type")
    if kind not in ROI_HEADS:
        raise head.untranslated("type", f"expected {', '.join(ROI_HEADS)}")
    made = ROI_HEADS[kind](head, num_classes, train)
    masks = getattr(made, "mask_head", None) is not None and head.get("mask_head") is not None
    return TwoStageDetector(
        backbone=backbone,
        neck=neck,
        rpn_head=proposals,
        roi_head=made,
        test=roi_test(test.part("rcnn"), masks),
    )


def proposal_network(model: Settings, num_classes: int | None) -> RPN:
    """A region proposal network on its own."""
    train, test = model.part("train_cfg"), model.part("test_cfg")
    backbone = backbone_of(model)
    neck = neck_of(model, backbone)
    if neck is None:
        raise model.untranslated("neck", "expected a neck")
    return RPN(backbone=backbone, neck=neck, rpn_head=_rpn(model.part("rpn_head"), train, test))


def _rpn(head: Settings, train: Settings, test: Settings) -> RPNHead:
    head.only("type", "RPNHead")
    head.only("num_convs", 1)
    head.only("num_classes", 1)
    head.ignored("init_cfg")
    rule = train.part("rpn")
    rule.only("pos_weight", -1, default=-1)
    rule.ignored("debug")
    loss = class_loss(head)
    if not isinstance(loss, BinaryCrossEntropy):
        raise head.untranslated("loss_cls", "expected a sigmoid cross-entropy")
    return RPNHead(
        in_channels=head.take("in_channels"),
        channels=head.take("feat_channels", 256),
        anchors=anchors_of(head),
        coder=delta_coder(head),
        assigner=max_iou_assigner(rule),
        sampler=sampler_of(rule),
        class_weight=loss.weight,
        box_loss=box_loss(head, decoded=head.take("reg_decoded_bbox", False)),
        border=rule.take("allowed_border", 0),
        training=proposals_of(train.part("rpn_proposal")) if "rpn_proposal" in train else None,
        testing=proposals_of(test.part("rpn")),
    )


def _standard(head: Settings, num_classes: int | None, train: Settings) -> StandardRoIHead:
    head.only("shared_head", None)
    rule = train.part("rcnn")
    masks: dict[str, Any] = {}
    if head.get("mask_head") is not None:
        if head.get("mask_roi_extractor") is None:
            raise head.untranslated("mask_roi_extractor", "expected an extractor beside a mask head")
        extractor = head.part("mask_roi_extractor")
        masks = {
            "mask_roi_extractor": _extractor(extractor),
            "mask_head": _mask_head(head.part("mask_head"), num_classes, rule, extractor),
        }
    head.ignored(*(key for key in ("mask_head", "mask_roi_extractor") if head.get(key) is None))
    return StandardRoIHead(
        bbox_roi_extractor=_extractor(head.part("bbox_roi_extractor")),
        bbox_head=_box_head(head.part("bbox_head"), num_classes),
        assigner=max_iou_assigner(rule),
        sampler=_region_sampler(rule),
        **masks,
    )


def _region_sampler(rule: Settings) -> Any:
    rule.only("pos_weight", -1, default=-1)
    rule.ignored("debug")
    if "mask_size" not in rule.used:
        # Without a mask head nothing is of that size.
        rule.ignored("mask_size")
    return sampler_of(rule)


def _cascade(head: Settings, num_classes: int | None, train: Settings) -> CascadeRoIHead:
    count = head.take("num_stages")
    head.only("shared_head", None)
    rules = train.take("rcnn")
    if not isinstance(rules, (list, tuple)) or len(rules) != count:
        raise train.untranslated("rcnn", f"expected settings for each of {count} stages")
    heads = _each(head, "bbox_head", count)
    extractors = _each(head, "bbox_roi_extractor", count)
    masks: dict[str, Any] = {}
    if head.get("mask_head") is not None:
        mask_extractors = _each(head, "mask_roi_extractor", count)
        masks = {
            "mask_roi_extractor": [_extractor(one) for one in mask_extractors],
            "mask_head": [
                _mask_head(one, num_classes, rule, extractor)
                for one, rule, extractor in zip(_each(head, "mask_head", count), rules, mask_extractors)
            ],
        }
    head.ignored(*(key for key in ("mask_head", "mask_roi_extractor") if head.get(key) is None))
    return CascadeRoIHead(
        bbox_roi_extractor=[_extractor(one) for one in extractors],
        bbox_head=[_box_head(one, num_classes) for one in heads],
        assigners=[max_iou_assigner(rule) for rule in rules],
        samplers=[_region_sampler(rule) for rule in rules],
        stage_weights=tuple(head.take("stage_loss_weights")),
        **masks,
    )


def _each(owner: Settings, key: str, count: int) -> Sequence[Settings]:
    """The settings of each stage; one for all is repeated."""
    given = owner.take(key)
    found = [given] * count if isinstance(given, Settings) else list(given or ())
    if len(found) != count:
        raise owner.untranslated(key, f"expected one for each of {count} stages")
    return found


def _extractor(settings: Settings) -> RoIExtractor:
    settings.only("type", "SingleRoIExtractor")
    settings.ignored("out_channels", "init_cfg")
    layer = settings.part("roi_layer")
    layer.only("type", "RoIAlign")
    layer.only("pool_mode", "avg")
    layer.only("use_torchvision", False)
    size, ratio = layer.take("output_size"), layer.take("sampling_ratio", 0)
    aligned = layer.take("aligned", True)
    return RoIExtractor(
        [RoIAlign(size, s, sampling_ratio=ratio, aligned=aligned) for s in strides_of(settings, "featmap_strides")],
        finest_scale=settings.take("finest_scale", 56),
    )


def _box_head(head: Settings, num_classes: int | None) -> BoxHead:
    head.ignored("init_cfg")
    kind = head.take("type")
    if kind not in BOX_HEADS:
        raise head.untranslated("type", f"expected {', '.join(BOX_HEADS)}")
    convs, fcs = BOX_HEADS[kind]
    if kind == "ConvFCBBoxHead":
        convs, fcs = head.take("num_shared_convs", 0), head.take("num_shared_fcs", 0)
        for key in ("num_cls_convs", "num_cls_fcs", "num_reg_convs", "num_reg_fcs"):
            head.only(key, 0)
    if kind == "BBoxHead" or not fcs:
        head.only("with_avg_pool", kind == "BBoxHead", default=kind == "BBoxHead")
        if convs or kind != "BBoxHead":
            raise head.untranslated("type", "expected fully connected layers, or a BBoxHead with average pooling")
    else:
        head.only("with_avg_pool", False)
    for key in ("with_cls", "with_reg"):
        head.only(key, True)
    for key in ("reg_predictor_cfg", "cls_predictor_cfg"):
        if isinstance(head.take(key, None), Settings):
            head.part(key).only("type", "Linear")
    count = head.take("num_classes", 80)
    return BoxHead(
        num_classes=count if num_classes is None else num_classes,
        in_channels=head.take("in_channels", 256),
        roi_size=head.take("roi_feat_size", 7),
        convs=convs,
        fcs=fcs,
        conv_channels=head.take("conv_out_channels", 256),
        fc_channels=head.take("fc_out_channels", 1024),
        class_agnostic=head.take("reg_class_agnostic", False),
        coder=delta_coder(head, stds=(0.1, 0.1, 0.2, 0.2)),
        class_loss=class_loss(head),
        box_loss=box_loss(head, decoded=head.take("reg_decoded_bbox", False)),
        norm=norm_of(head),
        conv=conv_of(head),
    )


BOX_HEADS = {
    "Shared2FCBBoxHead": (0, 2),
    "Shared4Conv1FCBBoxHead": (4, 1),
    "ConvFCBBoxHead": (0, 0),
    "BBoxHead": (0, 0),
}
"""Shared convolutions and fully connected layers of each kind."""


def _mask_head(head: Settings, num_classes: int | None, rule: Settings, extractor: Settings) -> FCNMaskHead:
    head.only("type", "FCNMaskHead")
    head.ignored("init_cfg", "roi_feat_size")
    head.only("conv_kernel_size", 3)
    head.only("class_agnostic", False)
    head.only("predictor_cfg", None, default=None)
    loss = head.part("loss_mask")
    loss.only("type", "CrossEntropyLoss")
    loss.only("use_mask", True)
    # The logits are twice as large as the region, and so is what they are trained on.
    rule.only("mask_size", 2 * extractor.part("roi_layer")["output_size"])
    count = head.take("num_classes", 80)
    return FCNMaskHead(
        num_classes=count if num_classes is None else num_classes,
        in_channels=head.take("in_channels", 256),
        channels=head.take("conv_out_channels", 256),
        convs=head.take("num_convs", 4),
        upsample=_upsample(head),
        loss_weight=loss.take("loss_weight", 1.0),
        norm=norm_of(head),
        conv=conv_of(head),
    )


def _upsample(head: Settings) -> Callable[[int, int], nn.Module] | None:
    if "upsample_cfg" not in head:
        return None
    upsample = head.part("upsample_cfg")
    kind = upsample.only("type", "deconv", "carafe")
    upsample.only("scale_factor", 2)
    if kind == "deconv":
        return None
    plain_carafe(upsample)
    return carafe_upsample


ROI_HEADS: dict[str, Callable[[Settings, int | None, Settings], Any]] = {
    "StandardRoIHead": _standard,
    "CascadeRoIHead": _cascade,
}
DETECTORS: dict[str, Callable[[Settings, int | None], Detector]] = {
    **dict.fromkeys(("FasterRCNN", "MaskRCNN", "CascadeRCNN", "FastRCNN", "TwoStageDetector"), two_stage),
    "RPN": proposal_network,
}
