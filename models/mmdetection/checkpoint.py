"""A person's own MMDetection checkpoint as a detector."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from ..creation import seeded
from ..detectors.base import Detector
from ..weights import load_detector
from ..weights.reading import Checkpoint, read
from .building import class_names, recipe_of
from .reading import parse_config, read_config
from .settings import ConfigError, Settings

log = logging.getLogger(__name__)


def from_mmdetection(
    checkpoint: str | PathLike[str],
    config: str | PathLike[str] | None = None,
    num_classes: Any = None,
    *,
    seed: int | None = None,
) -> Detector:
    """The detector of a checkpoint that MMDetection 2.x or 3.x trained, with its weights, classes and recipe.

    No line of the file is run: the configuration is read as data, the weights as tensors.

    Args:
        checkpoint: the ``.pth`` file.
        config: a configuration file (``.py``, ``.json``, ``.yaml``) instead of the one that the checkpoint carries, or
            of the one dumped beside it.
        num_classes: another class count, or a dataset whose classes are counted; the class layers then start fresh.
        seed: decides what starts fresh.

    Raises:
        WeightsError: when the file cannot be read, or its weights do not fit the configuration.
        ConfigError: when the configuration cannot be read, or an argument of it is not translated; it names the
            argument, its value and the line. Faults of the training part alone are said in ``detector.untranslated``.
    """
    file = Path(checkpoint).expanduser()
    found = read(file)
    settings = configuration(file, found, config)
    recipe, faults = recipe_of(
        settings, file.stem if file.parent.name in ("", ".") else f"{file.parent.name}_{file.stem}"
    )
    classes = found.classes or meta_classes(found.metadata) or class_names(settings)
    count = recipe.num_classes
    classes = classes if classes is not None and len(classes) == count else None
    if num_classes is None:
        wanted, names = count, classes
    elif isinstance(num_classes, int):
        wanted, names = num_classes, None
    else:
        names = tuple(num_classes.classes)
        wanted = len(names)
    detector: Detector = seeded(seed, lambda: recipe.build(wanted))  # type: ignore[assignment]
    detector.recipe = replace(recipe, classes=classes)
    detector.classes = names
    load_detector(detector, detector.recipe, replace(found, classes=classes), str(file))
    detector.untranslated = tuple(faults)  # type: ignore[assignment]
    for fault in faults:
        log.warning("%s: training is not as it was: %s", file, fault)
    return detector.eval()


def is_checkpoint(file: Path) -> bool:
    """Whether this is a file that MMDetection may have written."""
    return file.suffix in (".pth", ".pt") and file.is_file()


def configuration(file: Path, found: Checkpoint, given: str | PathLike[str] | None = None) -> Settings:
    """The settings of a checkpoint: as given, else those that it carries, else the one file dumped beside it."""
    if given is not None:
        return read_config(Path(given).expanduser())
    text = found.metadata.get("config", found.metadata.get("cfg"))
    if isinstance(text, str) and text.strip():
        return parse_config(text, f"{file}: configuration")
    beside = sorted(file.parent.glob("*.py"))
    if len(beside) == 1:
        return read_config(beside[0])
    why = f"{len(beside)} lie beside it" if beside else "none lies beside it"
    raise ConfigError(f"{file}: carries no configuration, and {why}; give the one that MMDetection dumped: config=...")


def meta_classes(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names in the words of 3.x."""
    data = meta.get("dataset_meta")
    names = data.get("classes", data.get("CLASSES")) if isinstance(data, Mapping) else None
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None
