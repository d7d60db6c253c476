"""Single-stage detectors by their MMDetection names."""

from __future__ import annotations

from functools import partial
from pathlib import PurePath

from torch import nn

from ..detectors.single_stage import SingleStageDetector
from ..methods.ld import DistilledDetector
from ..zoo import find_recipe
from .anchor_heads import ANCHOR_HEADS, Translate
from .backbones import backbone_of
from .necks import neck_of
from .point_heads import POINT_HEADS
from .settings import ConfigError, Settings

HEADS: dict[str, Translate] = {**ANCHOR_HEADS, **POINT_HEADS}


def single_stage(model: Settings, num_classes: int | None) -> SingleStageDetector:
    """A backbone, a neck and one dense head; ``num_classes``: instead of the head's own."""
    head = model.part("bbox_head")
    kind = head.take("type")
    if kind not in HEADS:
        raise head.untranslated("type", f"expected {', '.join(HEADS)}")
    head.ignored("init_cfg")
    count = head.take("num_classes", 80)
    backbone = backbone_of(model)
    neck = neck_of(model, backbone) or nn.Identity()
    train = model.take("train_cfg", None)
    train = train if isinstance(train, Settings) else Settings({"pos_weight": -1}, file=model.file)
    made, test = HEADS[kind](head, count if num_classes is None else num_classes, train, model.part("test_cfg"), neck)
    return SingleStageDetector(backbone=backbone, neck=neck, bbox_head=made, test=test)


def distilled(model: Settings, num_classes: int | None) -> DistilledDetector:
    """A GFL detector that learns from a teacher, which is a published one, or none can be built when it is trained."""
    head = model.part("bbox_head")
    head.only("type", "LDHead")
    if "loss_ld" not in head:
        raise ConfigError(f"{head.place()}: expected loss_ld")
    loss = head.part("loss_ld")
    loss.only("type", "KnowledgeDistillationKLDivLoss")
    model.only("eval_teacher", True)
    model.ignored("teacher_ckpt")
    head["type"] = "GFLHead"
    student = single_stage(model, num_classes)
    return DistilledDetector(
        backbone=student.backbone,
        neck=student.neck,
        bbox_head=student.bbox_head,  # type: ignore[arg-type]
        test=student.test,
        teacher_recipe=partial(find_recipe, PurePath(model.take("teacher_config")).stem),
        temperature=loss.take("T", 10),
        weight=loss.take("loss_weight", 1.0),
    )
