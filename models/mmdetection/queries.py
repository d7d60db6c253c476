"""Detectors that predict a set by their MMDetection names: DETR, Deformable DETR and Sparse R-CNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..assigners.hungarian import FocalCost, HungarianMatcher, softmax_cost
from ..boxes import xyxy_to_cxcywh
from ..detectors.base import Detector
from ..detectors.set_prediction import SetDetector
from ..losses import GIoULoss, L1Loss
from ..losses.set_prediction import FocalSetLoss, SetLoss
from ..methods.deformable_detr import DeformableDETRHead
from ..methods.detr import DETRHead, NoObjectCrossEntropy
from ..methods.sparse_rcnn import EmbeddingProposals, SparseRCNN, SparseRoIHead, corners
from ..settings import SetTest
from .backbones import backbone_of
from .extractors import extractor_of
from .necks import neck_of
from .parts import box_loss, delta_coder, focal_loss
from .settings import Settings

RELU = {"type": "ReLU", "inplace": True}


def detr(model: Settings, num_classes: int | None) -> SetDetector:
    """A backbone and the head of DETR."""
    backbone = backbone_of(model)
    neck = neck_of(model, backbone)
    head = model.part("bbox_head")
    head.only("type", "DETRHead")
    head.ignored("init_cfg", "sync_cls_avg_factor")
    transformer = head.part("transformer")
    transformer.only("type", "Transformer")
    encoder, decoder = _stack(transformer, "encoder"), _stack(transformer, "decoder")
    channels, heads, hidden, dropout = _same(transformer, encoder, decoder)
    _positions(head, channels, offset=0.0)
    head.only("num_reg_fcs", 2)
    count = _classes(head, num_classes)
    loss = head.part("loss_cls")
    for key, value in (("type", "CrossEntropyLoss"), ("use_sigmoid", False), ("class_weight", 1.0)):
        loss.only(key, value)
    scores = NoObjectCrossEntropy(loss.take("bg_cls_weight", 1.0), loss.take("loss_weight", 1.0))
    queries = head.take("num_query", 100)
    made = DETRHead(
        num_classes=count,
        in_channels=head.take("in_channels"),
        channels=channels,
        queries=queries,
        heads=heads,
        layers=encoder["layers"],
        decoder_layers=decoder["layers"],
        hidden=hidden,
        dropout=dropout,
        set_loss=_set_loss(head, model.take("train_cfg", None), softmax_cost, scores, xyxy_to_cxcywh, count),
    )
    test = SetTest(max_per_image=model.part("test_cfg").take("max_per_img", queries))
    return SetDetector(backbone=backbone, neck=neck, bbox_head=made, test=test)


def deformable_detr(model: Settings, num_classes: int | None) -> SetDetector:
    """A backbone, a neck of equal channels and the head of Deformable DETR."""
    backbone = backbone_of(model)
    neck = neck_of(model, backbone)
    if neck is None:
        raise model.untranslated("neck", "expected a neck")
    head = model.part("bbox_head")
    head.only("type", "DeformableDETRHead")
    head.ignored("init_cfg", "sync_cls_avg_factor", "in_channels")
    two_stage = head.take("as_two_stage", False)
    transformer = head.part("transformer")
    transformer.only("type", "DeformableDetrTransformer")
    transformer.only("as_two_stage", two_stage)
    encoder, decoder = _stack(transformer, "encoder"), _stack(transformer, "decoder")
    channels, heads, hidden, dropout = _same(transformer, encoder, decoder)
    levels = len(neck.out_channels)  # type: ignore[arg-type]
    transformer.only("num_feature_levels", levels, default=4)
    if (encoder["levels"], encoder["points"]) != (levels, decoder["points"]) or decoder["levels"] != levels:
        raise transformer.untranslated("encoder", f"expected {levels} levels, and as many points in the decoder")
    proposals = transformer.take("two_stage_num_proposals", 300)
    queries = head.take("num_query", 100)
    _positions(head, channels, offset=-0.5)
    head.only("num_reg_fcs", 2)
    count = _classes(head, num_classes)
    loss = focal_loss(head)
    made = DeformableDETRHead(
        num_classes=count,
        channels=channels,
        queries=proposals if two_stage else queries,
        heads=heads,
        layers=encoder["layers"],
        decoder_layers=decoder["layers"],
        levels=levels,
        points=encoder["points"],
        hidden=hidden,
        dropout=dropout,
        refine=head.take("with_box_refine", False),
        two_stage=two_stage,
        set_loss=_set_loss(head, model.take("train_cfg", None), None, FocalSetLoss(loss), xyxy_to_cxcywh, count),
    )
    test = SetTest(max_per_image=model.part("test_cfg").take("max_per_img", queries))
    return SetDetector(backbone=backbone, neck=neck, bbox_head=made, test=test)


def _classes(head: Settings, num_classes: int | None) -> int:
    count = head.take("num_classes")
    return count if num_classes is None else num_classes


def _stack(transformer: Settings, key: str) -> dict[str, Any]:
    """The numbers of the layers of an encoder or decoder, all of which are alike."""
    stack = transformer.part(key)
    decoder = key == "decoder"
    kinds = ("DetrTransformerDecoder", "DeformableDetrTransformerDecoder") if decoder else ("DetrTransformerEncoder",)
    stack.only("type", *kinds)
    if decoder:
        stack.only("return_intermediate", True, default=False)
    layer = stack.part("transformerlayers")
    layer.only("type", "DetrTransformerDecoderLayer" if decoder else "BaseTransformerLayer")
    steps = ("self_attn", "norm", *(("cross_attn", "norm") if decoder else ()), "ffn", "norm")
    layer.only("operation_order", steps)
    for owner, name in ((layer, "act_cfg"), (stack, "post_norm_cfg")):
        if name in owner:
            owner.only(name, RELU if name == "act_cfg" else {"type": "LN"})
    layer.only("norm_cfg", {"type": "LN"})
    layer.only("ffn_num_fcs", 2)
    given = layer.take("attn_cfgs")
    attentions = [given] * (2 if decoder else 1) if isinstance(given, Settings) else list(given)
    found: dict[str, Any] = {"layers": stack.take("num_layers")}
    for attention in attentions:
        numbers = _attention(attention)
        for name, value in numbers.items():
            if found.setdefault(name, value) != value:
                raise layer.untranslated("attn_cfgs", f"expected one {name} for all")
    if "ffn_cfgs" in layer:
        network = layer.part("ffn_cfgs")
        network.only("type", "FFN")
        network.only("embed_dims", found["channels"], default=found["channels"])
        network.only("num_fcs", 2)
        network.only("act_cfg", RELU)
        hidden, dropout = network.take("feedforward_channels", 1024), network.take("ffn_drop", 0.0)
    else:
        hidden, dropout = layer.take("feedforward_channels", 1024), layer.take("ffn_dropout", 0.0)
    if dropout != found["dropout"]:
        raise layer.untranslated("ffn_dropout", f"attention has {found['dropout']}, and one is expected for both")
    return {**found, "hidden": hidden}


def _attention(attention: Settings) -> dict[str, Any]:
    kind = attention.only("type", "MultiheadAttention", "MultiScaleDeformableAttention")
    attention.only("batch_first", False)
    plain = kind == "MultiheadAttention"
    numbers = {
        "channels": attention.take("embed_dims") if plain else attention.take("embed_dims", 256),
        "heads": attention.take("num_heads") if plain else attention.take("num_heads", 8),
        "dropout": attention.take("dropout", 0.0 if plain else 0.1),
    }
    if not plain:
        attention.ignored("im2col_step")
        numbers |= {"levels": attention.take("num_levels", 4), "points": attention.take("num_points", 4)}
    return numbers


def _same(transformer: Settings, encoder: dict[str, Any], decoder: dict[str, Any]) -> tuple[int, int, int, float]:
    """Channels, heads, hidden channels and dropout, which encoder and decoder share."""
    names = ("channels", "heads", "hidden", "dropout")
    for name in names:
        if encoder[name] != decoder[name]:
            raise transformer.untranslated("decoder", f"expected the {name} of the encoder, {encoder[name]}")
    channels, heads, hidden, dropout = (encoder[name] for name in names)
    return channels, heads, hidden, dropout


def _positions(head: Settings, channels: int, offset: float) -> None:
    positions = head.part("positional_encoding")
    positions.only("type", "SinePositionalEncoding")
    positions.only("num_feats", channels // 2)
    positions.only("normalize", True, default=False)
    positions.only("offset", offset, default=0.0)
    for key, value in (("temperature", 10000), ("scale", 6.283185307179586), ("eps", 1e-6)):
        positions.only(key, value)


def _set_loss(
    head: Settings,
    train: Settings | None,
    class_cost: Callable[[Tensor], Tensor] | None,
    class_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    shape: Callable[[Tensor], Tensor],
    classes: int,
) -> SetLoss:
    """How a set is trained; ``train`` has the matcher's settings. class_cost: none for the focal one."""
    boxes, overlaps = box_loss(head), box_loss(head, "loss_iou")
    if not isinstance(boxes, L1Loss):
        raise head.untranslated("loss_bbox", "expected L1Loss")
    if not isinstance(overlaps, GIoULoss):
        raise head.untranslated("loss_iou", "expected GIoULoss")
    weights: dict[str, Any] = {}
    if train is not None:
        rule = train.part("assigner")
        rule.only("type", "HungarianAssigner")
        cost = rule.part("cls_cost")
        cost.only("type", "ClassificationCost" if class_cost is not None else "FocalLossCost")
        if class_cost is None:
            class_cost = FocalCost(cost.take("alpha", 0.25), cost.take("gamma", 2.0), cost.take("eps", 1e-12))
        distance, overlap = rule.part("reg_cost"), rule.part("iou_cost")
        distance.only("type", "BBoxL1Cost")
        distance.only("box_format", "xywh" if shape is xyxy_to_cxcywh else "xyxy", default="xyxy")
        overlap.only("type", "IoUCost")
        overlap.only("iou_mode", "giou")
        names = (("class_weight", cost), ("box_weight", distance), ("iou_weight", overlap))
        weights = {name: part.take("weight", 1.0) for name, part in names}
    matcher = HungarianMatcher(class_cost or FocalCost(), shape, **weights)
    return SetLoss(matcher, class_loss, classes, boxes.weight, overlaps)


def sparse_rcnn(model: Settings, num_classes: int | None) -> SparseRCNN:
    """A backbone, a neck, learnt proposals and the stages that refine them."""
    backbone = backbone_of(model)
    neck = neck_of(model, backbone)
    if neck is None:
        raise model.untranslated("neck", "expected a neck")
    proposals, head = model.part("rpn_head"), model.part("roi_head")
    proposals.only("type", "EmbeddingRPNHead")
    head.only("type", "SparseRoIHead")
    for part in (proposals, head):
        part.ignored("init_cfg")
    channels, count = head.take("proposal_feature_channel", 256), proposals.take("num_proposals")
    proposals.only("proposal_feature_channel", channels, default=256)
    stages = head.take("num_stages", 6)
    head.only("stage_loss_weights", (1,) * stages, default=(1,) * stages)
    head.only("mask_head", None)
    extractor = head.part("bbox_roi_extractor")
    size: int = extractor.part("roi_layer")["output_size"]
    train, test = model.part("train_cfg"), model.part("test_cfg")
    for part in (train, test):
        part.only("rpn", None)
    rules, heads = train.take("rcnn"), head.take("bbox_head")
    heads = [heads] * stages if isinstance(heads, Settings) else heads
    rules = [rules] * stages if isinstance(rules, Settings) else rules
    made = [_dynamic_head(one, rule, num_classes, size) for one, rule in zip(heads, rules, strict=True)]
    for other in made[1:]:
        if other != made[0]:
            raise head.untranslated("bbox_head", "expected equal settings for all stages")
    return SparseRCNN(
        backbone=backbone,
        neck=neck,
        rpn_head=EmbeddingProposals(count, channels),
        roi_head=SparseRoIHead(stages=stages, bbox_roi_extractor=extractor_of(extractor), **made[0]),
        test=SetTest(max_per_image=test.part("rcnn").take("max_per_img")),
    )


def _dynamic_head(head: Settings, rule: Settings, num_classes: int | None, size: int) -> dict[str, Any]:
    head.only("type", "DIIHead")
    head.ignored("init_cfg")
    head.only("num_ffn_fcs", 2)
    head.only("ffn_act_cfg", RELU)
    # Boxes have no class here, whatever these say.
    head.ignored("reg_class_agnostic", "roi_feat_size")
    rule.ignored("pos_weight", "debug")
    rule.part("sampler").only("type", "PseudoSampler")
    channels = head.take("in_channels", 256)
    conv: dict[str, Any] = {}
    if "dynamic_conv_cfg" in head:
        dynamic = head.part("dynamic_conv_cfg")
        dynamic.only("type", "DynamicConv")
        dynamic.only("in_channels", channels)
        dynamic.only("out_channels", channels)
        dynamic.only("input_feat_shape", size)
        dynamic.only("with_proj", True)
        dynamic.only("act_cfg", RELU)
        dynamic.only("norm_cfg", {"type": "LN"})
        conv = {"dynamic_channels": dynamic.take("feat_channels", 64)}
    count = _classes(head, num_classes)
    numbers = {
        "num_classes": count,
        "channels": channels,
        "roi_size": size,
        "heads": head.take("num_heads", 8),
        "hidden": head.take("feedforward_channels", 2048),
        "class_layers": head.take("num_cls_fcs", 1),
        "box_layers": head.take("num_reg_fcs", 3),
        "dropout": head.take("dropout", 0.0),
        "coder": delta_coder(head),
    }
    loss = _set_loss(head, rule, None, FocalSetLoss(focal_loss(head)), corners, count)
    return {**numbers, **conv, "set_loss": loss}


DETECTORS: dict[str, Callable[[Settings, int | None], Detector]] = {
    "DETR": detr,
    "DeformableDETR": deformable_detr,
    "SparseRCNN": sparse_rcnn,
}
