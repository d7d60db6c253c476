"""From a detector, or from what it predicted, to an evaluator with the detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..datasets.base import DetectionDataset
from ..datasets.loader import Loader
from ..errors import DatasetError, RunError, nearest, require_count
from ..evaluators.base import Evaluator, Report
from ..evaluators.choosing import NamedProtocol
from ..evaluators.proposals import ProposalEvaluator
from ..models.methods.rpn import RPN
from ..models.recipe import Recipe
from ..models.structures import Detections
from ..models.tta import TTA
from ..reports.progress import Progress, say
from ..results.run import load, require_fitting
from ..results.weights import Trained
from .batching import CollateViews
from .given import are_predictions, fitting_evaluator, read_predictions
from .running import default_workers, predicted, ready, recipe_views, single_device


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


def require_figure(name: str, dataset: DetectionDataset | None, trained: Trained) -> None:
    """Raises RunError where scoring a detector on a dataset gives no figure of this name."""
    if dataset is None:
        raise RunError(f"monitor: {name} is a figure of a scoring, and there is no validation set")
    evaluator = evaluator_for_model(dataset, trained.model, trained.recipe.needs_masks, None)
    names = list(evaluator.compute().metrics)
    if name not in names:
        raise RunError(f"monitor: expected one of {', '.join(names)}, found {name!r}{nearest(name, names)}")


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
