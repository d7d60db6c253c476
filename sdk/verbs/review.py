"""Looking for annotations that are probably wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.adapter import OnFault
from ..datasets.base import DetectionDataset
from ..datasets.combining import subset
from ..errors import SdkError
from ..evaluators.base import Evaluator
from ..inference.given import are_predictions, fitting_evaluator, read_predictions
from ..inference.running import default_workers, single_device
from ..inference.scoring import collect
from ..insight.review import Review, review_of
from ..models.structures import Detections
from ..opening import scored_split
from ..reports.progress import say
from ..results.run import Run, load, require_fitting
from .fit import fit

QUEUE, PAGE = "queue.csv", "review.html"


def review(
    dataset: Any,
    what: Any,
    *,
    split: str | None = None,
    on_fault: OnFault = "raise",
    folds: int | None = None,
    training: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
    out: str | os.PathLike | None = None,
) -> Review:
    """Ranks annotations by how probably they are wrong, and says what would set them right.

    Args:
        dataset: a path, a dataset, or a list of these, as of ``sdk.open``; where it carries splits, ``val`` is
            reviewed.
        what: a Run or its folder, a detector, a weights file, a name of the zoo, a COCO results file, or the Detections
            of all images. Best is what never saw these annotations in training.
        split: ``train``, ``val`` or ``test`` instead. on_fault: ``raise``, ``skip`` or ``repair`` broken annotations.
        folds: train ``what`` (a name of the zoo, or a Run or file to start from) so many times, each time without one
            part of the images, and review every part by the detector that never saw it.
        training: options of ``sdk.fit`` for the folds, such as ``{"epochs": 12}``.
        batch_size, workers, device: as in ``sdk.evaluate``.
        out: folder for ``queue.csv``, in which decisions can be written, ``review.html``, and the folds' runs.

    Returns:
        The review; accept suggestions and ``review.amendments().save("fixes.json")``, then
        ``dataset.amended("fixes.json")`` reads the data with them.

    Raises:
        ClassMismatch: when the detector's classes are not the dataset's.
        SdkError: when there are not enough images for the folds, or not Detections for every image.
    """
    reviewed = scored_split(dataset, split, on_fault, drawn=False)
    notes = []
    if folds is not None:
        evaluator = _by_folds(reviewed, what, folds, dict(training or {}), batch_size, workers, device, out)
        notes.append(f"judged by {folds} detectors, each of which never saw the images that it judges")
    else:
        if training is not None:
            raise SdkError("training: options of the folds are given, and folds is not; expected folds=5, say")
        if isinstance(what, (str, os.PathLike)) and Path(what).is_dir() and not are_predictions(what):
            what = Run(what)
        if isinstance(what, Run) and what.manifest.get("dataset", {}).get("fingerprint") == reviewed.fingerprint:
            notes.append("the detector was trained on these very annotations and may have learnt their faults; "
                         "folds=5 judges each image by a detector that never saw it")  # fmt: skip
        evaluator = _collected(reviewed, what, batch_size, workers, device)
    result = review_of(reviewed, evaluator, notes)
    say(repr(result))
    for note in notes:
        say(note)
    if out is not None:
        say(f"the queue is {result.save(Path(out) / QUEUE)}")
        say(f"the page is {result.page(Path(out) / PAGE)}")
    return result


def _collected(
    dataset: DetectionDataset, what: Any, batch_size: int, workers: int | None, device: str | None, keep: Any = None
) -> Evaluator:
    """An evaluator with what was predicted, or what a detector finds."""
    if are_predictions(what):
        return read_predictions(dataset, Path(what))
    if isinstance(what, Sequence) and not isinstance(what, str) and all(isinstance(one, Detections) for one in what):
        if len(what) != len(dataset):
            raise SdkError(f"detections of {len(what)} images, and the dataset has {len(dataset)}; give one for each")
        evaluator = fitting_evaluator(dataset, False)
        evaluator.update([dataset.info(i).image_id for i in range(len(dataset))], what)
        return evaluator
    trained = load(what)
    require_fitting(trained, dataset.classes)
    fabric = single_device(device)
    trained.model.to(fabric.device)
    workers = default_workers() if workers is None else workers
    return collect(dataset, trained.model, trained.recipe, batch_size, workers, fabric, keep=keep)


def _by_folds(
    dataset: DetectionDataset,
    what: Any,
    folds: int,
    training: dict[str, Any],
    batch_size: int,
    workers: int | None,
    device: str | None,
    out: str | os.PathLike | None,
) -> Evaluator:
    if not 2 <= folds <= len(dataset):
        raise SdkError(f"folds: found {folds}; expected 2 to {len(dataset)}, the number of images")
    found: dict[Any, Detections] = {}

    def keep(image_ids: Sequence[Any], detections: Sequence[Detections]) -> None:
        found.update(zip(image_ids, detections))

    order = np.random.default_rng(training.get("seed", 0)).permutation(len(dataset))
    for number in range(folds):
        held_out = np.sort(order[number::folds])
        rest = np.setdiff1d(order, held_out)
        say(f"fold {number + 1} of {folds}: training on {len(rest)} images, judging {len(held_out)}")
        folder = None if out is None else Path(out) / f"fold_{number + 1}"
        if workers is not None:
            training.setdefault("workers", workers)
        run = fit(subset(dataset, rest), what, out=folder, **training)
        _collected(subset(dataset, held_out), run, batch_size, workers, device, keep)
    evaluator = fitting_evaluator(dataset, next(iter(found.values())).masks is not None)
    evaluator.update(list(found), list(found.values()))
    return evaluator
