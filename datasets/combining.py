"""Datasets made of other datasets: joined, cut, repeated, split. Works on every ``DetectionDataset``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .base import DetectionDataset, ImageInfo, own_evaluator
from .errors import DatasetError
from .index import Annotations, columns_of, concatenate
from .sample import Sample


class Subset:
    """Some images of a dataset, in the given order; an image may come more than once.

    It is scored by the protocol of the whole, or as COCO where the whole is a class of the user's own.
    """

    def __init__(self, dataset: DetectionDataset, indices: Sequence[int] | np.ndarray) -> None:
        indices = np.asarray(indices)
        if indices.size and indices.dtype.kind not in "iu":
            raise DatasetError("indices are not whole numbers", field="indices", found=indices.dtype)
        outside = indices[(indices < 0) | (indices >= len(dataset))]
        if len(outside):
            raise DatasetError(
                "no such image", field="indices", found=outside[0].item(), expected=f"0..{len(dataset) - 1}"
            )
        self.dataset = dataset
        self.indices = indices.astype(np.int64).reshape(-1)
        self.classes, self.category_ids = dataset.classes, dataset.category_ids
        self.protocol = getattr(dataset, "protocol", "coco")

    @property
    def fingerprint(self) -> str:
        """Hash of the whole's and of the chosen places."""
        return hashlib.sha256(self.dataset.fingerprint.encode() + self.indices.tobytes()).hexdigest()

    @cached_property
    def annotations(self) -> Annotations:
        """The ground truth as columns."""
        return columns_of(self.dataset).select(self.indices)

    @property
    def ground_truth(self) -> Path | None:
        """Folder of the three sets of WIDER FACE."""
        return getattr(self.dataset, "ground_truth", None)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[int(self.indices[index])]

    def info(self, index: int) -> ImageInfo:
        return self.dataset.info(int(self.indices[index]))

    def evaluator(self) -> Any:
        return own_evaluator(self)


class Concatenation:
    """Several datasets with the same classes, one after the other. Image ids are made unique where they collide."""

    def __init__(self, datasets: Sequence[DetectionDataset]) -> None:
        if not datasets:
            raise DatasetError("nothing to concatenate")
        first = datasets[0]
        for number, other in enumerate(datasets[1:], 1):
            if tuple(other.classes) != tuple(first.classes):
                differing = sorted(set(other.classes) ^ set(first.classes)) or "the same names in another order"
                raise DatasetError(
                    "class lists differ",
                    where=f"dataset {number}",
                    field="classes",
                    found=differing,
                    expected=first.classes,
                )
        self.datasets = tuple(datasets)
        self.classes, self.category_ids = first.classes, first.category_ids
        protocols = {getattr(dataset, "protocol", "coco") for dataset in datasets}
        self.protocol = protocols.pop() if len(protocols) == 1 else "coco"
        self._ends = np.cumsum([len(dataset) for dataset in datasets])

    @property
    def fingerprint(self) -> str:
        """Hash of the parts' fingerprints."""
        return hashlib.sha256("".join(dataset.fingerprint for dataset in self.datasets).encode()).hexdigest()

    @cached_property
    def annotations(self) -> Annotations:
        """The ground truth as columns."""
        return concatenate([columns_of(dataset) for dataset in self.datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[DetectionDataset, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.datasets[part], index - int(self._ends[part]) + len(self.datasets[part])

    def __getitem__(self, index: int) -> Sample:
        dataset, place = self._locate(index)
        sample = dataset[place]
        return sample if self._own_ids else replace(sample, image_id=self.annotations.image_ids[index].item())

    def info(self, index: int) -> ImageInfo:
        dataset, place = self._locate(index)
        info = dataset.info(place)
        return info if self._own_ids else replace(info, image_id=self.annotations.image_ids[index].item())

    @cached_property
    def _own_ids(self) -> bool:
        """Whether the parts' ids are unique as they are."""
        first = columns_of(self.datasets[0]).image_ids
        return len(first) == 0 or bool(self.annotations.image_ids[0] == first[0])

    def evaluator(self) -> Any:
        return own_evaluator(self)

    def __add__(self, other: DetectionDataset) -> Concatenation:
        return Concatenation([*self.datasets, other])


def concat(*datasets: DetectionDataset) -> Concatenation:
    """The datasets one after the other. Raises DatasetError where their class lists differ."""
    return Concatenation(datasets)


def subset(dataset: DetectionDataset, indices: Sequence[int] | np.ndarray) -> Subset:
    """The images at these places."""
    return Subset(dataset, indices)


def repeat(dataset: DetectionDataset, times: int) -> Subset:
    """The dataset gone through ``times`` times in one epoch."""
    if times < 1:
        raise DatasetError("repeats must be at least one", field="times", found=times)
    return Subset(dataset, np.tile(np.arange(len(dataset)), times))


def split(dataset: DetectionDataset, parts: Mapping[str, float], *, seed: int = 0) -> dict[str, Any]:
    """Disjoint random parts by name, such as ``{"train": 0.8, "val": 0.2}``; the same for the same seed and length.

    Fractions add up to at most one; every image is in at most one part, and in exactly one where they add up to one.
    """
    if not parts or min(parts.values()) <= 0 or sum(parts.values()) > 1 + 1e-9:
        raise DatasetError("not fractions", field="parts", found=dict(parts), expected="positive, at most 1 together")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(dataset))
    ends = np.round(np.cumsum(list(parts.values())) * len(dataset)).astype(int)
    starts = [0, *ends[:-1]]
    return {name: Subset(dataset, np.sort(order[a:b])) for name, a, b in zip(parts, starts, ends)}
