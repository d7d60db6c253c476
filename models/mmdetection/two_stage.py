"""Two-stage detectors by their MMDetection names."""

from __future__ import annotations

from collections.abc import Callable

from ..detectors.base import Detector
from ..detectors.two_stage import TwoStageDetector
from ..methods.rpn import RPN
from ..methods.tridentnet import TridentFasterRCNN
from .backbones import backbone_of
from .necks import neck_of
from .parts import roi_test
from .proposals import proposal_head
from .regions import region_head
from .settings import Settings


def two_stage(
    model: Settings, num_classes: int | None, build: Callable[..., TwoStageDetector] = TwoStageDetector
) -> TwoStageDetector:
    """A backbone, a neck, a proposal head where there is one, and a head of regions in one stage or several."""
    train, test = model.part("train_cfg"), model.part("test_cfg")
    backbone = backbone_of(model)
    neck = neck_of(model, backbone)
    proposals = None if model.get("rpn_head") is None else proposal_head(model.part("rpn_head"), train, test)
    if proposals is None:
        model.ignored("rpn_head")
    head = model.part("roi_head")
    regions = region_head(head, num_classes, train, test)
    return build(
        backbone=backbone,
        neck=neck,
        rpn_head=proposals,
        roi_head=regions,
        test=roi_test(test.part("rcnn"), head.get("mask_head") is not None),
    )


def trident(model: Settings, num_classes: int | None) -> TwoStageDetector:
    """Faster R-CNN with the branches of TridentNet."""
    return two_stage(model, num_classes, TridentFasterRCNN)


def proposal_network(model: Settings, num_classes: int | None) -> RPN:
    """A region proposal network on its own."""
    train, test = model.part("train_cfg"), model.part("test_cfg")
    backbone = backbone_of(model)
    neck = neck_of(model, backbone)
    if neck is None:
        raise model.untranslated("neck", "expected a neck")
    return RPN(backbone=backbone, neck=neck, rpn_head=proposal_head(model.part("rpn_head"), train, test))


TWO_STAGE = (
    "FasterRCNN",
    "MaskRCNN",
    "CascadeRCNN",
    "FastRCNN",
    "HybridTaskCascade",
    "SCNet",
    "MaskScoringRCNN",
    "PointRend",
    "GridRCNN",
    "TwoStageDetector",
)
DETECTORS: dict[str, Callable[[Settings, int | None], Detector]] = {
    **dict.fromkeys(TWO_STAGE, two_stage),
    "TridentFasterRCNN": trident,
    "RPN": proposal_network,
}
