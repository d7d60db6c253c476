"""Several datasets as one, with classes matched by name and a wished share of each.

Where one dataset does not annotate a class that another does, its objects of that class are background to a detector:
mix datasets that annotate the same things, or say which of their classes mean the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from .base import DetectionDataset, ImageInfo, own_evaluator
from .combining import Concatenation
from .errors import DatasetError
from .index import Annotations, columns_of
from .sample import Sample
from .sampling import AttributeShares
from .writing import Writable


class Relabelled(Writable):
    """A dataset whose labels count in another class list; ``names`` says under which name each of its classes goes."""

    def __init__(self, dataset: DetectionDataset, classes: Sequence[str], names: Sequence[str]) -> None:
        self.dataset, self.classes = dataset, tuple(classes)
        self.category_ids = tuple(range(1, len(self.classes) + 1))
        self.labels = np.array([self.classes.index(name) for name in names], np.int64)
        self.protocol = getattr(dataset, "protocol", "coco")

    @property
    def fingerprint(self) -> str:
        """Hash of the dataset's and of the new labels."""
        return hashlib.sha256(self.dataset.fingerprint.encode() + self.labels.tobytes()).hexdigest()

    @cached_property
    def annotations(self) -> Annotations:
        """The ground truth as columns."""
        columns = columns_of(self.dataset)
        return replace(columns, labels=self.labels[columns.labels], frequencies=None, neg_labels=None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return replace(sample, labels=self.labels[sample.labels])

    def info(self, index: int) -> ImageInfo:
        info = self.dataset.info(index)
        return replace(info, labels=self.labels[np.asarray(info.labels, np.int64)])

    def evaluator(self) -> Any:
        return own_evaluator(self)


class Mixture(Concatenation):
    """Datasets one after the other in one class list; ``sampler`` shows each of them in its share of an epoch."""

    def __init__(self, datasets: Sequence[DetectionDataset], shares: Sequence[float] | None) -> None:
        super().__init__(datasets)
        source = np.repeat(np.arange(len(datasets)), [len(dataset) for dataset in datasets])
        self.sampler = None if shares is None else AttributeShares(source.tolist(), dict(enumerate(shares)))


def mix(
    datasets: Sequence[DetectionDataset | tuple[DetectionDataset, float]], synonyms: Mapping[str, str] | None = None
) -> Mixture:
    """Several datasets as one; an epoch has as many images as all of them together.

    Args:
        datasets: datasets, or pairs of a dataset and its share of the images of an epoch, in any unit.
        synonyms: class names to the name under which they go, such as ``{"automobile": "car"}``.

    Raises:
        DatasetError: when there is nothing to mix, a share is not positive, or a synonym is no class of any of them.
    """
    pairs = [one if isinstance(one, tuple) else (one, None) for one in datasets]
    if not pairs:
        raise DatasetError("nothing to mix", field="datasets")
    shares = [share for _, share in pairs]
    if any(share is None for share in shares) and any(share is not None for share in shares):
        raise DatasetError("shares of some datasets only", field="datasets", found=shares, expected="all or none")
    for share in shares:
        if share is not None and not share > 0:
            raise DatasetError("not a share", field="datasets", found=share, expected="a positive number")
    synonyms = dict(synonyms or {})
    known = {str(name) for dataset, _ in pairs for name in dataset.classes}
    unknown = sorted(synonyms.keys() - known)
    if unknown:
        raise DatasetError(
            "no class of any of the datasets", field="synonyms", found=unknown[0], expected=sorted(known)
        )
    names = [[synonyms.get(str(name), str(name)) for name in dataset.classes] for dataset, _ in pairs]
    classes = list(dict.fromkeys(name for own in names for name in own))
    parts = [
        dataset if own == classes and list(map(str, dataset.classes)) == classes else Relabelled(dataset, classes, own)
        for (dataset, _), own in zip(pairs, names)
    ]
    return Mixture(parts, None if shares[0] is None else [float(share) for share in shares if share is not None])
