"""Scoring: a dataset's own protocol on a detector or on a predictions file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from .batching import Batch, Collate
from .checkpoint import Run, load
from .datasets.adapter import evaluator_for
from .datasets.base import DetectionDataset
from .datasets.loader import Loader
from .datasets.transforms import Preprocessing, Resize, Transform
from .errors import RunError, require_same_classes
from .evaluators.base import Evaluator, Report
from .models.recipe import Recipe
from .models.structures import Detections
from .models.tta import predict_with_flip
from .reporting import Progress, draw_examples, draw_precision_recall, headline, say, write_report


def evaluate(
    dataset: Any,
    what: Any,
    *,
    protocol: str | None = None,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
    out: str | os.PathLike | None = None,
) -> Report:
    """Scores a detector, or what it predicted, by the dataset's own protocol.

    Args:
        dataset: a DetectionDataset; where it carries splits, ``val`` is scored.
        what: a Run or its folder, a detector, a weights file, a name of the zoo, or a predictions file (``.json`` in
            the form of COCO results).
        protocol: ``coco``, ``voc``, ``lvis`` ... instead of the dataset's own.
        batch_size, workers: of the loader.
        device: such as ``cuda:1``; a GPU where there is one.
        out: folder for the report with pictures; by default ``evaluation`` in the run folder, none without a run.

    Raises:
        ClassMismatch: when the detector's classes are not the dataset's.
        RunError: when ``what`` is nothing that can be scored.
    """
    scored_on = scored_split(dataset)
    trained = None
    if isinstance(what, (str, os.PathLike)) and Path(what).suffix == ".json":
        report = score_file(scored_on, Path(what), protocol)
    else:
        trained = load(what)
        require_same_classes(trained.classes, int(trained.model.num_classes), scored_on.classes)  # type: ignore[arg-type]
        fabric = single_device(device)
        trained.model.to(fabric.device)
        workers = default_workers() if workers is None else workers
        report = score(scored_on, trained.model, trained.recipe, batch_size, workers, fabric, protocol)
    say(f"{report.protocol}: {headline(report)}")
    if out is None and isinstance(what, Run):
        out = what.folder / "evaluation"
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        if report.curves:
            draw_precision_recall(report, folder / "precision_recall.png")
            pictures.append(("Precision over recall", folder / "precision_recall.png"))
        if trained is not None:
            drawn = draw_examples(scored_on, trained, folder / "examples")
            pictures += [(f"{path.stem}: ground truth left, detections right", path) for path in drawn]
        source = str(what) if trained is None else trained.source
        say(f"the report is {write_report(report, folder, source, pictures)}")
    return report


def score_file(dataset: DetectionDataset, path: Path, protocol: str | None = None) -> Report:
    """Scores a COCO results file."""
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    # The first entry says whether masks are there; the evaluator checks every one.
    with open(path, encoding="utf-8") as file:
        masks = '"segmentation"' in file.read(4096)
    evaluator = fitting_evaluator(dataset, masks, protocol)
    if not hasattr(evaluator, "update_from_json"):
        raise RunError(f"{path}: {type(evaluator).__name__} reads no results files")
    evaluator.update_from_json(path)  # type: ignore[attr-defined]
    return evaluator.compute()


def score(
    dataset: DetectionDataset,
    model: nn.Module,
    recipe: Recipe,
    batch_size: int,
    workers: int,
    fabric: Fabric,
    protocol: str | None = None,
) -> Report:
    """Scores a detector on its device; every process of ``fabric`` sees its share of the images, all get the report."""
    loader = Loader(
        dataset,
        batch_size=batch_size,
        collate=Collate(recipe.preprocessing, proposals=recipe.needs_proposals),
        transforms=test_transforms(recipe.preprocessing),
        workers=workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    evaluator = None
    progress = Progress(len(loader), batch_size, shown=fabric.is_global_zero)
    training = model.training
    model.eval()
    with torch.no_grad(), fabric.autocast():
        for done, batch in enumerate(loader, start=1):
            found = predicted(model, batch.to(fabric.device), recipe)
            if evaluator is None:
                evaluator = fitting_evaluator(dataset, found[0].masks is not None, protocol)
            evaluator.update(batch.image_ids, found)
            progress.show(done, "scoring", {})
    model.train(training)
    return _merged(evaluator or fitting_evaluator(dataset, False, protocol), fabric)


def fitting_evaluator(dataset: DetectionDataset, masks: bool, protocol: str | None = None) -> Evaluator:
    """The dataset's own evaluator, or that of another protocol; without ``masks`` one that scores boxes alone."""
    evaluator = dataset.evaluator() if protocol is None else evaluator_for(dataset, protocol)
    if not masks and "segm" in getattr(evaluator, "kinds", ()):
        return type(evaluator)(dataset, kinds=("bbox",))  # type: ignore[call-arg]
    return evaluator


def test_transforms(preprocessing: Preprocessing) -> tuple[Transform, ...]:
    """The recipe's test-time resizing."""
    return () if preprocessing.size is None else (Resize((preprocessing.size,), preprocessing.keep_ratio),)


def default_workers() -> int:
    """One process a core that loads images, eight at most."""
    return min(8, os.cpu_count() or 1)


def carries_splits(dataset: Any) -> bool:
    """Whether this is a dataset as a whole, opened on a folder with several splits, and not one of its splits."""
    train = getattr(dataset, "train", None)
    return train is not None and (train is dataset or not hasattr(dataset, "__getitem__"))


def scored_split(dataset: Any) -> DetectionDataset:
    """The validation split of a dataset that carries splits, said aloud; otherwise the dataset itself."""
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


def predicted(model: nn.Module, batch: Batch, recipe: Recipe) -> list[Detections]:
    """Detections of a batch, on the CPU; of images and their mirror images together where the recipe says so."""
    if recipe.test_flip:
        return [found.to("cpu") for found in predict_with_flip(model, batch.images)]  # type: ignore[arg-type]
    given = {"proposals": [target.proposals for target in batch.targets]} if recipe.needs_proposals else {}
    return [found.to("cpu") for found in model.predict(batch.images, **given)]  # type: ignore[operator]


def _merged(evaluator: Evaluator, fabric: Fabric) -> Report:
    """The report over what all processes saw; computed by the first one, known to all."""
    if fabric.world_size == 1:
        return evaluator.compute()
    collected: list[Any] | None = [None] * fabric.world_size if fabric.is_global_zero else None
    compact = hasattr(evaluator, "state")
    torch.distributed.gather_object(evaluator.state() if compact else evaluator, collected, dst=0)  # type: ignore[attr-defined]
    report = None
    if collected is not None:
        merge = evaluator.merge_state if compact else evaluator.merge  # type: ignore[attr-defined]
        for other in collected[1:]:
            merge(other)
        report = evaluator.compute()
    return fabric.broadcast(report)
