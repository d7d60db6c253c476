"""Running a detector: device, views, detections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from ..datasets.base import DetectionDataset
from ..datasets.sample import Sample
from ..errors import SdkError
from ..models.detectors.base import Detector
from ..models.folding import channels_last, for_inference
from ..models.recipe import Recipe
from ..models.structures import Detections
from ..models.tta import TTA, predict_views
from ..results.weights import Trained
from .batching import Batch, CollateViews


def single_device(device: str | None) -> Fabric:
    """Fabric on one device: the one that is named, or a GPU where there is one."""
    if device is None:
        return Fabric(accelerator="auto", devices=1)
    kind, _, index = device.partition(":")
    return Fabric(accelerator=kind, devices=[int(index)] if index else 1)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(ranks: int = 1) -> int:
    """One process a core that loads images, eight at most, where ``ranks`` trainings share the machine."""
    return max(1, min(8, (os.cpu_count() or 1) // ranks))


def recipe_views(recipe: Recipe) -> TTA:
    """The views in which the recipe's scores were published."""
    return TTA(flips=("horizontal",)) if recipe.test_flip else TTA()


READY = "made_ready"
"""Attribute of the copies that ``ready`` makes."""


def ready(model: nn.Module) -> nn.Module:
    """A copy of a detector that finds the same in less time; a model that is no ``Detector`` is taken as it is.

    Making it takes about as long as half an image of 800 x 1333 on a CPU.
    """
    if not isinstance(model, Detector):
        return model
    made = for_inference(model)
    setattr(made, READY, True)
    return made


def predicted(model: nn.Module, batches: Sequence[Batch], recipe: Recipe, tta: TTA) -> list[Detections]:
    """Detections, on the CPU, of images of which there is one batch at each scale of ``tta``; model: made ``ready``."""
    proposals = None
    if recipe.needs_proposals:
        proposals = [[target.proposals for target in batch.targets] for batch in batches]
    views = [batch.images for batch in batches]
    if model.__dict__.get(READY):
        views = [channels_last(view) for view in views]
    found = predict_views(model, views, tta.flips, proposals)  # type: ignore[arg-type]
    return [one.to("cpu") for one in found]


def views_of(trained: Trained, images: Sequence[np.ndarray], tta: TTA | None = None) -> list[Batch]:
    """(H, W, 3) uint8 RGB images as the detector looks at them: a batch for each scale of ``tta``, on the CPU."""
    if trained.recipe.needs_proposals:
        raise SdkError(f"{trained.recipe.name} needs proposals; score it on a dataset that has them")
    tta = tta or recipe_views(trained.recipe)
    nothing = np.zeros(0, np.int64)
    samples = [
        Sample(image, np.zeros((0, 4), np.float32), nothing, nothing.astype(bool), image_id=number)
        for number, image in enumerate(images)
    ]
    return CollateViews(trained.recipe.preprocessing, scales=tta.scales)(samples)


def detect_views(trained: Trained, views: Sequence[Batch], tta: TTA | None = None) -> list[Detections]:
    """Detections, on the CPU, of the images whose ``views_of`` these are; faster where the model was made ``ready``."""
    device = next(trained.model.parameters()).device
    training = trained.model.training
    trained.model.eval()
    with torch.no_grad():
        views = [view.to(device) for view in views]
        found = predicted(trained.model, views, trained.recipe, tta or recipe_views(trained.recipe))
    trained.model.train(training)
    return found


def detect(trained: Trained, images: Sequence[np.ndarray], tta: TTA | None = None) -> list[Detections]:
    """Detections of (H, W, 3) uint8 RGB images in their own pixels, on the CPU; ``tta`` as of ``predict``."""
    return detect_views(trained, views_of(trained, images, tta), tta)


def examples(
    dataset: DetectionDataset, trained: Trained, count: int = 8, tta: TTA | None = None
) -> Iterator[tuple[Sample, Detections]]:
    """Images spread over the dataset, at most ``count``, with what the detector finds in them."""
    trained = replace(trained, model=ready(trained.model))
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)):
        sample = dataset[int(index)]
        yield sample, detect(trained, [sample.image], tta)[0]
