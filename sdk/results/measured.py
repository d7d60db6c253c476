"""Figures that were measured here: of published weights, kept in the cache, and of runs, in their folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.index import cache_folder
from ..errors import SdkError
from .files import write_json
from .run import Run

if TYPE_CHECKING:
    from ..datasets.base import DetectionDataset
    from ..evaluators.base import Report


def keep_figures(name: str, dataset: DetectionDataset, report: Report) -> Path:
    """Keeps the figures that the published weights of ``name`` got, in place of those of the same evaluation before."""
    told = {key: value for key, value in report.to_dict().items() if key != "per_class"}
    figures = {"dataset": type(dataset).__name__, "fingerprint": dataset.fingerprint, **told}
    same = json.dumps([figures[key] for key in ("dataset", "fingerprint", "protocol", "notes")])
    path = _folder(name) / f"{hashlib.sha256(same.encode()).hexdigest()[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, figures)
    return path


def kept_figures(name: str) -> list[dict[str, Any]]:
    """Every evaluation of the published weights of ``name`` that was kept."""
    return [json.loads(path.read_text()) for path in sorted(_folder(name).glob("*.json"))]


def figures_of(run: Run) -> dict[str, Any]:
    """The last evaluation of a run.

    Raises:
        SdkError: when it was not evaluated.
    """
    path = run.folder / "evaluation" / "report.json"
    if not path.is_file():
        raise SdkError(f"{run.folder}: was not evaluated yet: sdk.evaluate(dataset, run) writes {path}")
    return json.loads(path.read_text())


def _folder(name: str) -> Path:
    return cache_folder() / "measured" / name
