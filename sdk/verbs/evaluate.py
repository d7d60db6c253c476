"""Scoring: a dataset's own protocol on a detector or on a predictions file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.adapter import OnFault
from ..datasets.amending import amendment_note
from ..datasets.base import DetectionDataset
from ..evaluators.base import Evaluator, Report
from ..evaluators.choosing import NamedProtocol
from ..inference.given import are_predictions, read_predictions
from ..insight.review import review_of
from ..insight.slicing import slice_figures, slices_of
from ..opening import scored_split
from ..reports.evaluation import evaluation_page, write_report
from ..reports.page import Picture
from ..reports.progress import say
from ..reports.text import headline
from ..results.measured import keep_figures
from ..results.run import Run

if TYPE_CHECKING:
    from ..models.tta import TTA


def evaluate(
    dataset: Any,
    what: Any,
    *,
    split: str | None = None,
    on_fault: OnFault = "raise",
    protocol: NamedProtocol | None = None,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
    tta: TTA | None = None,
    slices: Mapping[str, Any] | None = None,
    out: str | os.PathLike | None = None,
) -> Report:
    """Scores a detector, or what it predicted, by the dataset's own protocol.

    Args:
        dataset: a path, a dataset, or a list of these, as of ``sdk.open``; where it carries splits, ``val`` is scored.
        what: a Run or its folder, a detector, a weights file, a name of the zoo, or predictions: a ``.json`` file in
            the form of COCO results, a ``.parquet`` file of ``sdk.predict``, or a folder of the protocol's own text
            files (Pascal VOC, WIDER FACE, Cityscapes).
        split: ``train``, ``val`` or ``test`` instead. on_fault: ``raise``, ``skip`` or ``repair`` broken annotations.
        protocol: ``coco``, ``voc``, ``lvis`` ... instead of the dataset's own, or a variation of one, such as
            ``sdk.evaluators.Coco(max_detections=(1, 10, 300))``.
        batch_size, workers: of the loader.
        device: such as ``cuda:1``; a GPU where there is one.
        tta: test-time augmentation, the views in which each image is seen; by default those of the recipe. The report
            names them.
        slices: name of an attribute to its values by image: a function of an ``ImageInfo``, a mapping from image ids, a
            sequence in the dataset's order, or the name of such a sequence that the dataset has. The report has the
            figures over the images of each value.
        out: folder for the report with pictures; by default ``evaluation`` in the run folder, none without a run. The
            figures of a name of the zoo are also kept for its model card.

    Raises:
        ClassMismatch: when the detector's classes are not the dataset's.
        RunError: when ``what`` is nothing that can be scored.
    """
    scored_on = scored_split(dataset, split, on_fault, drawn=not are_predictions(what))
    if not are_predictions(what) and isinstance(what, (str, os.PathLike)) and Path(what).is_dir():
        what = Run(what)
    if are_predictions(what):
        evaluator, trained = read_predictions(scored_on, Path(what), protocol), None
    else:
        # PyTorch is imported where a detector is run alone.
        from ..inference.running import recipe_views
        from ..inference.scoring import evaluator_of

        evaluator, trained = evaluator_of(
            scored_on, what, protocol, batch_size=batch_size, workers=workers, device=device, tta=tta
        )
        tta = tta or (recipe_views(trained.recipe) if trained is not None else None)
    report = evaluator.compute()
    if slices:
        report = replace(report, slices=slice_figures(report, slices_of(slices, scored_on)))
    if tta is not None and tta != type(tta)():
        report = replace(report, notes=(*report.notes, f"test-time augmentation: {tta}"))
    for applied in getattr(scored_on, "amendments", ()):
        report = replace(report, notes=(*report.notes, amendment_note(applied)))
    if trained is not None:
        report = replace(report, notes=(*report.notes, *limits(trained.model, evaluator)))
    say(f"{report.protocol}: {headline(report)}")
    for note in report.notes:
        say(f"note: {note}")
    if trained is not None and trained.source == trained.recipe.name:
        keep_figures(trained.recipe.name, scored_on, report)
    if out is None and isinstance(what, Run):
        out = what.folder / "evaluation"
    if out is not None:
        page = evaluation_page(
            report, str(what) if trained is None else trained.source, scored_on, _suspects(scored_on, evaluator)
        )
        say(f"the report is {write_report(report, Path(out), page)}")
    return report


SUSPECTS = 24
"""Label suspects in a page."""
MOST_DETECTIONS = 200_000
"""Of more the labels are not judged beside the scoring, which would take longer than the scoring itself."""


def _suspects(dataset: DetectionDataset, evaluator: Evaluator) -> list[Picture]:
    """Pictures of the annotations that are likeliest to be wrong."""
    if not hasattr(evaluator, "compared") or len(evaluator.state()["score"]) > MOST_DETECTIONS:
        return []
    return review_of(dataset, evaluator).pictures(SUSPECTS)


def limits(model: Any, evaluator: Any) -> list[str]:
    """Whether images hold more objects than a detector may return."""
    most, truth = getattr(getattr(model, "test", None), "max_per_image", None), getattr(evaluator, "truth", None)
    if most is None or truth is None:
        return []
    objects = np.bincount(truth.images[~(truth.ignore | truth.crowd)], minlength=len(truth.image_ids))
    crowded = int((objects > most).sum())
    return [f"{crowded} images hold more objects than the {most} that the detector returns (max_per_image)"] * (
        crowded > 0
    )
