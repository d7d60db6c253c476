"""From a detector, or from what it predicted, to an evaluator with the detections."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..datasets.base import DetectionDataset
from ..datasets.loader import Loader
from ..errors import DatasetError, RunError, require_count
from ..evaluators.base import Evaluator, Report
from ..evaluators.choosing import NamedProtocol, evaluator_for
from ..evaluators.cityscapes import CityscapesEvaluator
from ..evaluators.coco import CocoEvaluator
from ..evaluators.proposals import ProposalEvaluator
from ..models.methods.rpn import RPN
from ..models.recipe import Recipe
from ..models.structures import Detections
from ..models.tta import TTA
from ..reports.progress import Progress, say
from ..results.manifest import MANIFEST
from ..results.run import load, require_fitting
from ..results.weights import Trained
from .batching import CollateViews
from .running import default_workers, predicted, ready, recipe_views, single_device


def are_predictions(what: Any) -> bool:
    """Whether this names what was predicted: a results file, or a folder that is no run."""
    if not isinstance(what, (str, os.PathLike)):
        return False
    return Path(what).suffix == ".json" or (Path(what).is_dir() and not (Path(what) / MANIFEST).is_file())


def evaluator_of(
    dataset: DetectionDataset,
    what: Any,
    protocol: NamedProtocol | None = None,
    *,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
    tta: TTA | None = None,
) -> tuple[Evaluator, Trained | None]:
    """The evaluator with the detections of a detector or of what it predicted, and the detector. Arguments are those of
    ``sdk.evaluate``.

    Raises:
        ClassMismatch: when the detector's classes are not the dataset's.
        RunError: when ``what`` is nothing that can be scored.
    """
    if are_predictions(what):
        return read_predictions(dataset, Path(what), protocol), None
    trained = load(what)
    require_fitting(trained, dataset.classes)
    fabric = single_device(device)
    trained.model.to(fabric.device)
    workers = default_workers() if workers is None else workers
    return collect(dataset, trained.model, trained.recipe, batch_size, workers, fabric, protocol, tta=tta), trained


def read_predictions(
    dataset: DetectionDataset,
    path: Path,
    protocol: NamedProtocol | None = None,
    keep: Callable[[Sequence[Any], list[Detections]], None] | None = None,
) -> Evaluator:
    """The evaluator with the detections of a COCO results file, or of a folder of the protocol's own text files.

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
    # The first entry says whether masks are there; the evaluator checks every one.
    with open(path, encoding="utf-8") as file:
        masks = '"segmentation"' in file.read(4096)
    evaluator = fitting_evaluator(dataset, masks, protocol)
    if not hasattr(evaluator, "update_from_json"):
        raise RunError(f"{path}: {type(evaluator).__name__} reads no results files")
    evaluator.update_from_json(path)  # type: ignore[attr-defined]
    return evaluator


def score(
    dataset: DetectionDataset, model: nn.Module, recipe: Recipe, batch_size: int, workers: int, fabric: Fabric
) -> Report:
    """Scores a detector by the dataset's own protocol; every process of ``fabric`` gets the report."""
    evaluator = collect(dataset, model, recipe, batch_size, workers, fabric)
    return fabric.broadcast(evaluator.compute() if fabric.is_global_zero else None)  # type: ignore[return-value]


def scorable(dataset: DetectionDataset | None) -> DetectionDataset | None:
    """The dataset, or none where files are missing that only its protocol needs, such as the sets of
    WIDER FACE, which is said."""
    try:
        getattr(dataset, "ground_truth", None)
    except DatasetError as error:
        say(f"validation is not scored: {error}")
        return None
    return dataset


def collect(
    dataset: DetectionDataset,
    model: nn.Module,
    recipe: Recipe,
    batch_size: int,
    workers: int,
    fabric: Fabric,
    protocol: NamedProtocol | None = None,
    keep: Callable[[Sequence[Any], list[Detections]], None] | None = None,
    tta: TTA | None = None,
) -> Evaluator:
    """The evaluator with a detector's detections: each process looks at its share of the images, the first gets all.

    keep: is also given the image ids and detections of every batch, for those who want more than the scores. tta: the
    views in which each image is seen; by default those of the recipe.
    """
    require_count("batch_size", batch_size)
    tta = tta or recipe_views(recipe)
    loader = Loader(
        dataset,
        batch_size=batch_size,
        collate=CollateViews(recipe.preprocessing, proposals=recipe.needs_proposals, scales=tta.scales),
        workers=workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    evaluator: Evaluator | None = None
    progress = Progress(len(loader), batch_size, shown=fabric.is_global_zero)
    training = model.training
    used = ready(model).eval()
    with torch.no_grad(), fabric.autocast(), progress:
        for done, views in enumerate(loader, start=1):
            found = predicted(used, [view.to(fabric.device) for view in views], recipe, tta)
            image_ids = views[0].image_ids
            if evaluator is None:
                evaluator = evaluator_for_model(dataset, model, found[0].masks is not None, protocol)
            evaluator.update(image_ids, found)
            if keep is not None:
                keep(image_ids, found)
            progress.show(done, "scoring")
    model.train(training)
    if fabric.world_size > 1:
        # A process may have had no image; what the detector gives is the same everywhere.
        state = None if evaluator is None else evaluator.state()
        states: list[Any] | None = [None] * fabric.world_size if fabric.is_global_zero else None
        torch.distributed.gather_object(state, states, dst=0)
        for other in (states or [])[1:]:
            if evaluator is not None and other is not None:
                evaluator.merge_state(other)
    return evaluator or fitting_evaluator(dataset, False, protocol)


def evaluator_for_model(
    dataset: DetectionDataset, model: nn.Module, masks: bool, protocol: NamedProtocol | None
) -> Evaluator:
    """The evaluator of average recall for a proposal network, otherwise the fitting one of the dataset."""
    if isinstance(model, RPN) and protocol is None:
        return ProposalEvaluator(dataset)  # type: ignore[return-value]
    return fitting_evaluator(dataset, masks, protocol)


def fitting_evaluator(dataset: DetectionDataset, masks: bool, protocol: NamedProtocol | None = None) -> Evaluator:
    """The dataset's own evaluator, or that of another protocol; without ``masks`` one that scores boxes alone."""
    evaluator = evaluator_for(dataset, protocol)
    if not masks and protocol is None and isinstance(evaluator, CityscapesEvaluator):
        # Its protocol scores masks alone; boxes of Cityscapes are published by COCO's.
        return CocoEvaluator(dataset, kinds=("bbox",))
    if not masks and getattr(evaluator, "kinds", ("bbox",)) != ("bbox",):
        return evaluator.protocol.evaluator(dataset, masks=False)  # type: ignore[attr-defined]
    return evaluator
