"""Scoring: a dataset's own protocol on a detector or on a predictions file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from .batching import Batch, CollateViews
from .checkpoint import MANIFEST, Run, load, require_fitting
from .datasets.adapter import evaluator_for
from .datasets.base import DetectionDataset
from .datasets.loader import Loader
from .errors import RunError, SdkError
from .evaluators.analysis import confusion_matrix
from .evaluators.base import Evaluator, Report, Value
from .evaluators.cityscapes import CityscapesEvaluator
from .evaluators.coco import CocoEvaluator
from .evaluators.proposals import ProposalEvaluator
from .measured import keep_figures
from .models.methods.rpn import RPN
from .models.recipe import Recipe
from .models.structures import Detections
from .models.tta import TTA, predict_views
from .reporting import (
    Progress,
    curve_of,
    draw_confusion,
    draw_examples,
    draw_precision_recall,
    headline,
    say,
    write_report,
)


def evaluate(
    dataset: Any,
    what: Any,
    *,
    split: str | None = None,
    protocol: str | None = None,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
    tta: TTA | None = None,
    out: str | os.PathLike | None = None,
) -> Report:
    """Scores a detector, or what it predicted, by the dataset's own protocol.

    Args:
        dataset: a DetectionDataset; where it carries splits, ``val`` is scored.
        what: a Run or its folder, a detector, a weights file, a name of the zoo, or predictions: a ``.json`` file in
            the form of COCO results, or a folder of the protocol's own text files (Pascal VOC, WIDER FACE,
            Cityscapes).
        split: ``train``, ``val`` or ``test`` instead.
        protocol: ``coco``, ``voc``, ``lvis`` ... instead of the dataset's own.
        batch_size, workers: of the loader.
        device: such as ``cuda:1``; a GPU where there is one.
        tta: test-time augmentation, the views in which each image is seen; by default those of the recipe. The report
            names them.
        out: folder for the report with pictures; by default ``evaluation`` in the run folder, none without a run. The
            figures of a name of the zoo are also kept for its model card.

    Raises:
        ClassMismatch: when the detector's classes are not the dataset's.
        RunError: when ``what`` is nothing that can be scored.
    """
    scored_on = scored_split(dataset, split)
    trained = None
    if are_predictions(what):
        evaluator = read_predictions(scored_on, Path(what), protocol)
    else:
        if isinstance(what, (str, os.PathLike)) and Path(what).is_dir():
            what = Run(what)
        trained = load(what)
        require_fitting(trained, scored_on.classes)
        fabric = single_device(device)
        trained.model.to(fabric.device)
        workers = default_workers() if workers is None else workers
        tta = tta or recipe_views(trained.recipe)
        evaluator = collect(scored_on, trained.model, trained.recipe, batch_size, workers, fabric, protocol, tta=tta)
    report = with_best_thresholds(evaluator.compute())
    if tta is not None and tta != TTA():
        report = replace(report, notes=(*report.notes, f"test-time augmentation: {tta}"))
    say(f"{report.protocol}: {headline(report)}")
    if trained is not None and trained.source == trained.recipe.name:
        keep_figures(trained.recipe.name, scored_on, report)
    if out is None and isinstance(what, Run):
        out = what.folder / "evaluation"
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        if report.curves:
            draw_precision_recall(report, folder / "precision_recall.png")
            pictures.append(("Precision over recall", folder / "precision_recall.png"))
        if hasattr(evaluator, "compared"):
            kind = report.main.partition("/")[0]
            matrix = confusion_matrix(evaluator.compared(kind), scored_on.classes)  # type: ignore[attr-defined]
            draw_confusion(matrix, folder / "confusion.png")
            pictures.append(("What was there against what was said", folder / "confusion.png"))
        if trained is not None:
            drawn = draw_examples(scored_on, trained, folder / "examples", tta=tta)
            pictures += [(f"{path.stem}: ground truth left, detections right", path) for path in drawn]
        source = str(what) if trained is None else trained.source
        say(f"the report is {write_report(report, folder, source, pictures)}")
    return report


def are_predictions(what: Any) -> bool:
    """Whether this names what was predicted: a results file, or a folder that is no run."""
    if not isinstance(what, (str, os.PathLike)):
        return False
    return Path(what).suffix == ".json" or (Path(what).is_dir() and not (Path(what) / MANIFEST).is_file())


def read_predictions(
    dataset: DetectionDataset,
    path: Path,
    protocol: str | None = None,
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


def collect(
    dataset: DetectionDataset,
    model: nn.Module,
    recipe: Recipe,
    batch_size: int,
    workers: int,
    fabric: Fabric,
    protocol: str | None = None,
    keep: Callable[[Sequence[Any], list[Detections]], None] | None = None,
    tta: TTA | None = None,
) -> Evaluator:
    """The evaluator with a detector's detections: each process looks at its share of the images, the first gets all.

    keep: is also given the image ids and detections of every batch, for those who want more than the scores. tta: the
    views in which each image is seen; by default those of the recipe.
    """
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
    model.eval()
    with torch.no_grad(), fabric.autocast():
        for done, views in enumerate(loader, start=1):
            found = predicted(model, [view.to(fabric.device) for view in views], recipe, tta)
            image_ids = views[0].image_ids
            if evaluator is None:
                evaluator = evaluator_for_model(dataset, model, found[0].masks is not None, protocol)
            evaluator.update(image_ids, found)
            if keep is not None:
                keep(image_ids, found)
            progress.show(done, "scoring", {})
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


def with_best_thresholds(report: Report) -> Report:
    """The report with the score, for each class that has a curve, at which precision and recall together are best.

    Best is the highest F1, the harmonic mean of both, on the curve that the protocol draws.
    """
    per_class = {name: dict(figures) for name, figures in report.per_class.items()}
    for name, curve in report.curves.items():
        recall, precision, thresholds = curve_of(curve)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        if name not in per_class or not f1.max(initial=0) > 0:
            continue
        per_class[name]["best threshold"] = Value(float(thresholds[f1.argmax()]))
        per_class[name]["F1 there"] = Value(float(f1.max()))
    return replace(report, per_class=per_class)


def evaluator_for_model(dataset: DetectionDataset, model: nn.Module, masks: bool, protocol: str | None) -> Evaluator:
    """The evaluator of average recall for a proposal network, otherwise the fitting one of the dataset."""
    if isinstance(model, RPN) and protocol is None:
        return ProposalEvaluator(dataset)  # type: ignore[return-value]
    return fitting_evaluator(dataset, masks, protocol)


def fitting_evaluator(dataset: DetectionDataset, masks: bool, protocol: str | None = None) -> Evaluator:
    """The dataset's own evaluator, or that of another protocol; without ``masks`` one that scores boxes alone."""
    evaluator = dataset.evaluator() if protocol is None else evaluator_for(dataset, protocol)
    if not masks and protocol is None and isinstance(evaluator, CityscapesEvaluator):
        # Its protocol scores masks alone; boxes of Cityscapes are published by COCO's.
        return CocoEvaluator(dataset, kinds=("bbox",))
    if not masks and "segm" in getattr(evaluator, "kinds", ()):
        return type(evaluator)(dataset, kinds=("bbox",))  # type: ignore[call-arg]
    return evaluator


def default_workers() -> int:
    """One process a core that loads images, eight at most."""
    return min(8, os.cpu_count() or 1)


def carries_splits(dataset: Any) -> bool:
    """Whether this is a dataset as a whole, opened on a folder with several splits, and not one of its splits."""
    train = getattr(dataset, "train", None)
    return train is not None and (train is dataset or not hasattr(dataset, "__getitem__"))


def scored_split(dataset: Any, split: str | None = None) -> DetectionDataset:
    """The split that is asked for; else ``val`` of a dataset that carries splits, said aloud; else the dataset itself.

    Raises:
        SdkError: when the dataset has no such split.
    """
    if split is not None:
        chosen = getattr(dataset, split, None)
        if chosen is None:
            has = [name for name in ("train", "val", "test") if getattr(dataset, name, None) is not None]
            raise SdkError(
                f"the dataset has no split {split!r}; expected {' or '.join(has) or 'none, it has no splits'}"
            )
        return chosen
    if not carries_splits(dataset) or getattr(dataset, "val", None) is None:
        return dataset
    say(f"of the dataset's splits, val is taken ({len(dataset.val)} images)")
    return dataset.val


def single_device(device: str | None) -> Fabric:
    """Fabric on one device: the one that is named, or a GPU where there is one."""
    if device is None:
        return Fabric(accelerator="auto", devices=1)
    kind, _, index = device.partition(":")
    return Fabric(accelerator=kind, devices=[int(index)] if index else 1)


def recipe_views(recipe: Recipe) -> TTA:
    """The views in which the recipe's scores were published."""
    return TTA(flips=("horizontal",)) if recipe.test_flip else TTA()


def predicted(model: nn.Module, batches: Sequence[Batch], recipe: Recipe, tta: TTA) -> list[Detections]:
    """Detections, on the CPU, of images of which there is one batch at each scale of ``tta``."""
    proposals = None
    if recipe.needs_proposals:
        proposals = [[target.proposals for target in batch.targets] for batch in batches]
    found = predict_views(model, [batch.images for batch in batches], tta.flips, proposals)  # type: ignore[arg-type]
    return [one.to("cpu") for one in found]
