"""From samples to the batch that a detector takes.

Shape letters: B images of a batch, H x W padded pixels, h x w valid pixels of one image, N objects of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.base import DetectionDataset
from ..datasets.errors import DatasetError
from ..datasets.sample import Sample
from ..datasets.transforms import Preprocessing
from ..datasets.transforms.canvas import has_area, place
from ..datasets.transforms.geometry import resized
from ..models.recipe import Recipe
from ..models.structures import ImageBatch, Targets


class Batch:
    """Images and ground truth for the network, and which images they are.

    A plain class, because Fabric takes dataclasses that go into a model apart, and refuses frozen ones.
    """

    def __init__(
        self,
        images: ImageBatch,
        targets: list[Targets],
        image_ids: tuple[Any, ...],
        paths: tuple[Path | None, ...],
    ) -> None:
        self.images, self.targets, self.image_ids, self.paths = images, targets, image_ids, paths

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device; ``non_blocking`` as of ``Tensor.to``."""
        images = self.images.to(device, non_blocking)
        targets = [target.to(device, non_blocking) for target in self.targets]
        return Batch(images, targets, self.image_ids, self.paths)

    def pin_memory(self) -> Batch:
        """The same batch in memory from which a GPU can copy by itself (called by the loader)."""
        images, targets = self.images.pin_memory(), [target.pin_memory() for target in self.targets]
        return Batch(images, targets, self.image_ids, self.paths)

    def __len__(self) -> int:
        return len(self.images)

    def split(self, parts: int) -> list[Batch]:
        """The same images as at most ``parts`` smaller batches of nearly equal size."""
        ends = np.linspace(0, len(self), min(parts, len(self)) + 1).round().astype(int).tolist()
        return [self] if len(ends) == 2 else [self._between(*span) for span in pairwise(ends)]

    def _between(self, start: int, end: int) -> Batch:
        part = slice(start, end)
        values = ((field.name, getattr(self.images, field.name)) for field in fields(self.images))
        parts: dict[str, Any] = {name: None if value is None else value[part] for name, value in values}
        images = ImageBatch(**parts)
        return Batch(images, self.targets[part], self.image_ids[part], self.paths[part])


@dataclass(frozen=True)
class Collate:
    """Normalizes, pads and stacks samples that already have the network's size.

    Objects that are ignored or without area are no ground truth. masks, semantic, proposals: whether the detector reads
    them; what it does not read is never decoded.
    """

    preprocessing: Preprocessing
    masks: bool = False
    semantic: bool = False
    proposals: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Collate:
        """What the recipe's detector reads in training."""
        return cls(recipe.preprocessing, recipe.needs_masks, recipe.needs_semantic, recipe.needs_proposals)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        padded = [self.preprocessing.padded_size(sample.size) for sample in samples]
        height, width = max(size[0] for size in padded), max(size[1] for size in padded)
        pixels = np.zeros((len(samples), 3, height, width), np.float32)
        corners = [self.preprocessing.offset(sample.size) for sample in samples]
        for image, sample, (top, left) in zip(pixels, samples, corners):
            h, w = sample.size
            self.preprocessing.normalize(sample.image, image[:, top : top + h, left : left + w])
        images = ImageBatch(
            torch.from_numpy(pixels),
            [sample.size for sample in samples],
            [sample.original_size for sample in samples],
            [sample.scale for sample in samples],
            [(left, top) for top, left in corners] if any(map(any, corners)) else None,
        )
        placed = [
            place(sample, *corner, (height, width)) if any(corner) else sample
            for sample, corner in zip(samples, corners)
        ]
        targets = [self._targets(sample, height, width) for sample in placed]
        return Batch(images, targets, tuple(s.image_id for s in samples), tuple(s.path for s in samples))

    def _targets(self, sample: Sample, height: int, width: int) -> Targets:
        # Codes relative to a box without area are infinite; one that lay outside its image has none after resizing.
        objects = sample.keep(~sample.ignore & has_area(sample.boxes))
        masks = semantic = proposals = None
        if self.masks:
            masks = _padded(given(objects, "masks").decode().reshape(-1, *sample.size), height, width, 0)
        if self.semantic:
            semantic = _padded(given(sample, "semantic"), height, width, 255)
        if self.proposals:
            proposals = torch.from_numpy(np.ascontiguousarray(given(sample, "proposals"), dtype=np.float32))
        return Targets(
            boxes=torch.from_numpy(np.ascontiguousarray(objects.boxes, dtype=np.float32).reshape(-1, 4)),
            labels=torch.from_numpy(np.ascontiguousarray(objects.labels, dtype=np.int64)),
            masks=masks,
            ignore_boxes=torch.from_numpy(sample.boxes[sample.ignore].astype(np.float32).reshape(-1, 4)),
            semantic=semantic,
            proposals=proposals,
        )


WANTED = {
    "masks": "polygons or RLE in the annotations, or a detector without a mask branch",
    "semantic": "a folder of class maps, as of datasets.Coco(semantic=...)",
    "proposals": "a file of boxes, as of datasets.Coco(proposals=...)",
}


def given(sample: Sample, field: str) -> Any:
    """The sample's ``masks``, ``semantic`` map or ``proposals``, or DatasetError where the dataset gives none."""
    value = getattr(sample, field)
    if value is None:
        where = f"image {sample.image_id!r}"
        raise DatasetError(
            "the detector reads this, the dataset has none", where=where, field=field, expected=WANTED[field]
        )
    return value


def require_readable(recipe: Recipe, dataset: DetectionDataset) -> None:
    """Nothing where the first image has all that the recipe's detector reads, else DatasetError."""
    sample = dataset[0]
    for field in ("masks", "semantic", "proposals"):
        if getattr(recipe, f"needs_{field}"):
            given(sample, field)


@dataclass(frozen=True)
class CollateViews:
    """Makes batches of the same samples as a recipe tests them, one for each of the ``scales`` of its test size.

    proposals: whether the detector reads them.
    """

    preprocessing: Preprocessing
    proposals: bool = False
    scales: tuple[float, ...] = (1.0,)

    def __call__(self, samples: Sequence[Sample]) -> list[Batch]:
        collate = Collate(self.preprocessing, proposals=self.proposals)
        return [collate([tested(sample, self.preprocessing, scale) for sample in samples]) for scale in self.scales]


def tested(sample: Sample, preprocessing: Preprocessing, scale: float) -> Sample:
    """The sample at ``scale`` times the size at which it is tested."""
    height, width = preprocessing.resized_size(sample.size, scale)
    return resized(sample, (width, height), keep_ratio=False)


def _padded(values: np.ndarray, height: int, width: int, fill: int) -> Tensor:
    """(..., h, w) to (..., height, width), filled on the right and bottom."""
    h, w = values.shape[-2:]
    out = np.full((*values.shape[:-2], height, width), fill, dtype=np.uint8)
    out[..., :h, :w] = values
    return torch.from_numpy(out)
