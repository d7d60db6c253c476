"""Predictions that somebody else made, read into an evaluator; without PyTorch, which scoring them does not need."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.base import DetectionDataset
from ..errors import RunError
from ..evaluators.base import Evaluator
from ..evaluators.choosing import NamedProtocol, evaluator_for
from ..evaluators.cityscapes import CityscapesEvaluator
from ..evaluators.coco import CocoEvaluator
from ..evaluators.results_files import parquet_columns
from ..results.manifest import MANIFEST

if TYPE_CHECKING:
    from ..models.structures import Detections


def are_predictions(what: Any) -> bool:
    """Whether this names what was predicted: a results file, a Parquet file, or a folder that is no run."""
    if not isinstance(what, (str, os.PathLike)):
        return False
    return Path(what).suffix in (".json", ".parquet") or (Path(what).is_dir() and not (Path(what) / MANIFEST).is_file())


def read_predictions(
    dataset: DetectionDataset,
    path: Path,
    protocol: NamedProtocol | None = None,
    keep: Callable[[Sequence[Any], list[Detections]], None] | None = None,
) -> Evaluator:
    """The evaluator with the detections of a COCO results file, of a Parquet file that ``sdk.predict`` wrote, or of a
    folder of the protocol's own text files.

    keep: is also given the image ids and detections of such a folder.
    """
    if path.is_dir():
        evaluator = fitting_evaluator(dataset, True, protocol)
        if not hasattr(evaluator, "read_results"):
            kind = type(evaluator).__name__
            raise RunError(f"{path}: a folder without {MANIFEST} is no run, and {kind} reads no folders of results")
        for image_id, found in evaluator.read_results(path):  # type: ignore[attr-defined]
            evaluator.update([image_id], [found])
            if keep is not None:
                keep([image_id], [found])
        return evaluator
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    if path.suffix == ".parquet":
        masks = "mask" in parquet_columns(path)
    else:
        # The first entry says whether masks are there; the evaluator checks every one.
        with open(path, encoding="utf-8") as file:
            masks = '"segmentation"' in file.read(4096)
    evaluator = fitting_evaluator(dataset, masks, protocol)
    if not hasattr(evaluator, "update_from_json"):
        raise RunError(f"{path}: {type(evaluator).__name__} reads no results files")
    evaluator.update_from_json(path)  # type: ignore[attr-defined]
    return evaluator


def fitting_evaluator(dataset: DetectionDataset, masks: bool, protocol: NamedProtocol | None = None) -> Evaluator:
    """The dataset's own evaluator, or that of another protocol; without ``masks`` one that scores boxes alone."""
    evaluator = evaluator_for(dataset, protocol)
    if not masks and protocol is None and isinstance(evaluator, CityscapesEvaluator):
        # Its protocol scores masks alone; boxes of Cityscapes are published by COCO's.
        return CocoEvaluator(dataset, kinds=("bbox",))
    if not masks and getattr(evaluator, "kinds", ("bbox",)) != ("bbox",):
        return evaluator.protocol.evaluator(dataset, masks=False)  # type: ignore[attr-defined]
    return evaluator
