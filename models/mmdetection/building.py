"""From a configuration to a detector and its recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..detectors.base import Detector
from ..recipe import Recipe
from ..zoo import find_recipe
from .dense import distilled, single_stage
from .pipelines import test_pixels, training_transforms
from .queries import DETECTORS as QUERIES
from .schedules import Run, run_of
from .settings import ConfigError, Settings, from_plain, same, to_plain, without
from .two_stage import DETECTORS as TWO_STAGE

SINGLE_STAGE = (
    "RetinaNet",
    "FCOS",
    "ATSS",
    "GFL",
    "PAA",
    "VFNet",
    "FSAF",
    "YOLOV3",
    "YOLOF",
    "FOVEA",
    "RepPointsDetector",
    "AutoAssign",
    "NASFCOS",
    "SingleStageDetector",
)
DETECTORS: dict[str, Callable[[Settings, int | None], Detector]] = {
    **dict.fromkeys(SINGLE_STAGE, single_stage),
    "KnowledgeDistillationSingleStageDetector": distilled,
    **TWO_STAGE,
    **QUERIES,
}
NOT_BUILT = ("num_classes", "pretrained", "init_cfg", "with_cp", "teacher_ckpt")
"""What may differ from a published configuration whose architecture is the same."""


@dataclass(frozen=True)
class Translated:
    """Builds the detector of a configuration's model settings, kept as JSON; what a recipe's ``build`` is."""

    model: str

    def __call__(self, num_classes: int | None) -> Detector:
        return detector_of(from_plain(json.loads(self.model)), num_classes)


def recipe_of(config: Settings, name: str) -> tuple[Recipe, list[str]]:
    """The recipe of a configuration, and what of its training is not translated, one text for each.

    Raises:
        ConfigError: when the model or its test pipeline is not translated.
    """
    source = json.dumps(to_plain(config))
    model = prepared(config)
    classes = class_names(config)
    # The settings as they are read note what was used, and so are read once with their lines.
    detector = detector_of(model, None)
    pixels = test_pixels(config)
    faults: list[str] = []
    transforms = _tried(training_transforms, config, faults) or ()
    run: Run | None = _tried(run_of, config, faults)
    common: dict[str, Any] = {}
    if run is not None:
        common = {
            "optimizer": run.optimizer,
            "schedule": run.schedule,
            "sampling": run.sampling,
            "images_per_device": run.images_per_device,
            "devices": run.devices,
            "precision": run.precision,
        }
    heads = [key for key, value in (model.get("roi_head") or {}).items() if value is not None]
    recipe = Recipe(
        name=name,
        build=Translated(json.dumps(to_plain(without(model, ("data_preprocessor",))))),
        num_classes=int(detector.num_classes),
        dataset="own",
        classes=classes if classes is not None and len(classes) == detector.num_classes else None,
        preprocessing=pixels.preprocessing,
        train_transforms=transforms,
        needs_masks="mask_head" in model or "mask_head" in heads,
        needs_semantic="semantic_head" in heads,
        needs_proposals=model.get("type") == "FastRCNN",
        test_flip=pixels.flip,
        sync_batch_norm="SyncBN" in json.dumps(to_plain(model)),
        source=source,
        **common,
    )
    return recipe, faults


def from_source(source: str, name: str, num_classes: int) -> Detector:
    """The detector of a recipe's ``source``, with random weights."""
    recipe, _ = recipe_of(from_plain(json.loads(source)), name)
    detector: Detector = recipe.build(num_classes)  # type: ignore[assignment]
    detector.recipe = recipe
    return detector


def _tried(read: Callable[[Settings], Any], config: Settings, faults: list[str]) -> Any:
    """What ``read`` makes of the training settings, which are not needed for using a model; else none and a fault."""
    try:
        return read(config)
    except ConfigError as error:
        faults.append(str(error))
        return None


def prepared(config: Settings) -> Settings:
    """The model settings with the train and test settings that older files keep beside them."""
    model = config.part("model")
    for key in ("train_cfg", "test_cfg"):
        outer = config.get(key)
        # The loops of 3.x bear the same names.
        if model.get(key) is None and isinstance(outer, Settings) and not str(outer.get("type", "")).endswith("Loop"):
            model[key] = outer
            model.lines[key] = config.lines.get(key, 0)
    plain_names(model)
    plain_names(config)
    drop_copies(model)
    return model


def drop_copies(model: Settings) -> None:
    """Takes out the train and test settings that MMDetection copies into the heads while it builds them.

    Raises:
        ConfigError: when a head's settings are others than the model's.
    """
    for head, part in (("bbox_head", None), ("mask_head", None), ("rpn_head", "rpn"), ("roi_head", "rcnn")):
        owner = model.get(head)
        if not isinstance(owner, Settings):
            continue
        for key in ("train_cfg", "test_cfg"):
            common = model.get(key)
            expected = common if part is None or not isinstance(common, Settings) else common.get(part)
            if key in owner and owner[key] is not None and not same(to_plain(owner[key]), to_plain(expected)):
                owner.path = f"model.{head}"
                raise owner.untranslated(key, f"differs from model.{key}")
            owner.pop(key, None)
        owner.pop("pretrained", None)


def plain_names(value: Any) -> None:
    """Takes the scope off every ``type`` (``mmdet.ResNet``)."""
    if isinstance(value, Settings):
        kind = value.get("type")
        if isinstance(kind, str):
            value["type"] = kind.rsplit(".", 1)[-1]
        for one in value.values():
            plain_names(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            plain_names(one)


def detector_of(model: Settings, num_classes: int | None) -> Detector:
    """A detector with random weights; ``num_classes``: instead of the configuration's own.

    Raises:
        ConfigError: when an argument is not translated; it names the argument, its value and the line.
    """
    model.path = model.path or "model"
    try:
        return _translated(model, num_classes)
    except ConfigError:
        row = published_row(model)
        if row is None:
            raise
    recipe = find_recipe(row)
    return recipe.build(num_classes or class_count(model) or recipe.num_classes)  # type: ignore[return-value]


def _translated(model: Settings, num_classes: int | None) -> Detector:
    kind = model.take("type")
    if kind not in DETECTORS:
        raise model.untranslated("type", f"expected {', '.join(DETECTORS)}")
    model.ignored("data_preprocessor", "init_cfg")
    try:
        detector = DETECTORS[kind](model, num_classes)
    except ConfigError:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        # Values that no part accepts, such as a depth that no ResNet has.
        raise ConfigError(f"{model.place()}: cannot be built: {type(error).__name__}: {error}") from error
    model.require_read()
    return detector


def class_count(model: Settings) -> int | None:
    """The class count that the heads name, or none where they name several."""
    counts: set[int] = set()

    def look(value: Any, name: str) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("num_classes"), int) and "semantic" not in name:
                counts.add(value["num_classes"])
            for key, one in value.items():
                look(one, f"{name}.{key}")
        elif isinstance(value, (list, tuple)):
            for one in value:
                look(one, name)

    look(model, "model")
    return counts.pop() if len(counts) == 1 else None


def published_row(model: Settings) -> str | None:
    """The row of the zoo with exactly these settings but for the class count, for methods without a translation."""
    return published_models().get(fingerprint(model))


def fingerprint(model: Settings) -> str:
    """A hash of model settings without class counts and places of weights."""
    plain = without(to_plain(model), (*NOT_BUILT, "data_preprocessor"))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


@cache
def published_models() -> dict[str, str]:
    """Row of the zoo by the fingerprint of its published model settings."""
    return json.loads(resources.files(__package__ or __name__).joinpath("published.json").read_text(encoding="utf-8"))


def class_names(config: Settings) -> tuple[str, ...] | None:
    """The class names of a configuration, where it says them."""
    found = config.get("classes")
    for split in ("test", "val", "train"):
        data = config.get("data")
        owner = data.get(split) if isinstance(data, Settings) else config.get(f"{split}_dataloader")
        if isinstance(owner, Settings) and "dataset" in owner:
            owner = owner["dataset"]
        if isinstance(owner, Settings):
            meta = owner.get("metainfo")
            found = found or owner.get("classes") or (meta.get("classes") if isinstance(meta, Settings) else None)
    if isinstance(found, (list, tuple)) and found and all(isinstance(one, str) for one in found):
        return tuple(found)
    return None
