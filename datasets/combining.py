"""Datasets made of other datasets: joined, cut, repeated, split. Works on every ``DetectionDataset``."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .adapter import IndexedDataset, masks_of
from .amending import Amendments
from .base import DetectionDataset, ImageInfo, own_evaluator
from .errors import DatasetError
from .index import Annotations, Index, columns_of, concatenate
from .leaks import duplicate_groups
from .sample import Sample
from .writing import Writable


class Subset(Writable):
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


class Concatenation(Writable):
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


class OnlyClasses(Writable):
    """A dataset with some of its classes, in the given order; images stay, objects of other classes go."""

    def __init__(self, dataset: DetectionDataset, classes: Sequence[str]) -> None:
        names, wanted = list(map(str, dataset.classes)), list(classes)
        unknown = [name for name in wanted if name not in names]
        if unknown:
            close = difflib.get_close_matches(unknown[0], names, n=3)
            raise DatasetError(
                "no such class", field="classes", found=unknown[0], expected=" or ".join(close or names[:10])
            )
        if not wanted or len(set(wanted)) < len(wanted):
            raise DatasetError("classes are not a subset", field="classes", found=wanted, expected=names)
        self.dataset, self.classes = dataset, tuple(wanted)
        places = [names.index(name) for name in wanted]
        self.category_ids = tuple(dataset.category_ids[place] for place in places)
        self.labels = np.full(len(names), -1, np.int64)
        self.labels[places] = np.arange(len(wanted))
        self.protocol = getattr(dataset, "protocol", "coco")

    @property
    def fingerprint(self) -> str:
        """Hash of the whole's and of the chosen classes."""
        return hashlib.sha256(self.dataset.fingerprint.encode() + self.labels.tobytes()).hexdigest()

    @cached_property
    def annotations(self) -> Annotations:
        """The ground truth as columns."""
        return columns_of(self.dataset).relabel(self.labels)

    @property
    def ground_truth(self) -> Path | None:
        """Folder of the three sets of WIDER FACE."""
        return getattr(self.dataset, "ground_truth", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        labels = self.labels[sample.labels]
        return replace(sample, labels=labels).keep(labels >= 0)

    def info(self, index: int) -> ImageInfo:
        info = self.dataset.info(index)
        labels = self.labels[np.asarray(info.labels, np.int64)]
        return replace(info, labels=labels[labels >= 0])

    def evaluator(self) -> Any:
        return own_evaluator(self)


def only_classes(dataset: DetectionDataset, classes: Sequence[str]) -> OnlyClasses:
    """The dataset with these classes alone, in this order. Raises DatasetError where it lacks one."""
    return OnlyClasses(dataset, classes)


def subset(dataset: DetectionDataset, indices: Sequence[int] | np.ndarray) -> Subset:
    """The images at these places."""
    return Subset(dataset, indices)


def repeat(dataset: DetectionDataset, times: int) -> Subset:
    """The dataset gone through ``times`` times in one epoch."""
    if times < 1:
        raise DatasetError("repeats must be at least one", field="times", found=times)
    return Subset(dataset, np.tile(np.arange(len(dataset)), times))


def split(
    dataset: DetectionDataset,
    parts: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    by: Groups | None = None,
) -> dict[str, Any]:
    """Disjoint random parts by name, such as ``{"train": 0.8, "val": 0.2}`` (the default); the same for the same seed.

    Fractions add up to at most one; every image is in at most one part, and in exactly one where they add up to one.

    by: what must stay on one side: a video, a patient, a place. One value an image as a sequence (a column of a table)
    or a mapping by image id, a function of ``ImageInfo``, or a name: ``folder`` (of the image's file),
    ``near_duplicates`` (pictures that are the same, see ``leaks.find_leaks``), or an attribute of the dataset that
    holds one value an image, such as ``group``. Images whose value is None or NaN are groups of their own. Groups are
    dealt out so that every part has its fraction of the images and of the objects of each class, as near as whole
    groups allow.

    Raises:
        DatasetError: for fractions that are none, values that do not fit the images, or fewer groups than parts.
    """
    parts = {"train": 0.8, "val": 0.2} if parts is None else parts
    if not parts or min(parts.values()) <= 0 or sum(parts.values()) > 1 + 1e-9:
        raise DatasetError("not fractions", field="parts", found=dict(parts), expected="positive, at most 1 together")
    rng = np.random.Generator(np.random.Philox(seed))
    if by is not None:
        groups = _numbered(group_values(dataset, by))
        side = _dealt(_contents(dataset, groups), list(parts.values()), rng)
        return {name: Subset(dataset, np.flatnonzero(side[groups] == number)) for number, name in enumerate(parts)}
    order = rng.permutation(len(dataset))
    ends = np.round(np.cumsum(list(parts.values())) * len(dataset)).astype(int)
    starts = [0, *ends[:-1]]
    return {name: Subset(dataset, np.sort(order[a:b])) for name, a, b in zip(parts, starts, ends)}


Groups = str | Sequence[Hashable] | np.ndarray | Mapping[Any, Hashable] | Callable[[ImageInfo], Hashable]


def group_values(dataset: DetectionDataset, by: Groups) -> list[Hashable]:
    """The group of each image, as ``by`` of ``split`` says it."""
    if isinstance(by, str):
        if by == "near_duplicates":
            return duplicate_groups(dataset).tolist()
        if by == "folder":
            by = _folder
        elif (column := getattr(dataset, by, None)) is not None:
            by = column
        else:
            expected = "folder, near_duplicates, an attribute of the dataset, values, or a function of ImageInfo"
            raise DatasetError("nothing to group by", field="by", found=by, expected=expected)
    if callable(by):
        return [by(dataset.info(index)) for index in range(len(dataset))]
    if isinstance(by, Mapping):
        ids = [dataset.info(index).image_id for index in range(len(dataset))]
        missing = [image_id for image_id in ids if image_id not in by]
        if missing:
            raise DatasetError(f"{len(missing)} images have no group", where=f"image {missing[0]}", field="by")
        return [by[image_id] for image_id in ids]
    values = np.asarray(by, object).tolist()
    if len(values) != len(dataset):
        raise DatasetError("not one group an image", field="by", found=len(values), expected=f"{len(dataset)} values")
    return values


def _folder(info: ImageInfo) -> str:
    if info.path is None:
        raise DatasetError("the image has no file", where=f"image {info.image_id}", field="by", found="folder")
    return str(Path(info.path).parent)


def _numbered(values: Sequence[Hashable]) -> np.ndarray:
    """(I,) the number of each image's group; each None or NaN is a group of its own."""
    numbers: dict[Hashable, int] = {}
    # NaN is what differs from itself.
    keys = [("alone", index) if v is None or v != v else ("group", v) for index, v in enumerate(values)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _contents(dataset: DetectionDataset, groups: np.ndarray) -> np.ndarray:
    """(G, 1 + K) images, and objects of each class that count, of each group."""
    classes = len(dataset.classes)
    contents = np.zeros((int(groups.max(initial=-1)) + 1, 1 + classes))
    for index, group in enumerate(groups.tolist()):
        contents[group, 0] += 1
        contents[group, 1:] += np.bincount(np.asarray(dataset.info(index).labels, np.int64), minlength=classes)
    return contents


def _dealt(contents: np.ndarray, fractions: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """(G,) the part of each group, -1 for none, where the fractions leave some images over.

    Greedy, after iterative stratification (Sechidis et al., ECML 2011): the groups that hold most of a class or of
    the images come first, and each goes where it lowers the squared distance from what every part should have most.
    """
    wanted = list(fractions)
    if sum(wanted) < 1 - 1e-9:
        wanted.append(1 - sum(wanted))
    if len(contents) < len(wanted):
        raise DatasetError("fewer groups than parts", field="by", found=len(contents), expected=f"{len(wanted)}")
    totals = contents.sum(0)
    shares = contents / np.maximum(totals, 1)
    # Images weigh as much as all classes together.
    weights = np.where(totals > 0, 1.0, 0.0)
    weights[0] = max(weights[1:].sum(), 1.0)
    missing = np.outer(wanted, np.ones(len(totals)))
    side = np.empty(len(contents), np.int64)
    shuffled = rng.permutation(len(contents))
    for group in shuffled[np.argsort(-shares[shuffled].max(1), kind="stable")]:
        # (missing - share)^2 - missing^2, of which only one term depends on the part; relative to the part's size.
        gain = ((2 * missing - shares[group]) * shares[group] * weights).sum(1) / np.array(wanted)
        part = int(np.argmax(gain))
        side[group] = part
        missing[part] -= shares[group]
    for part in range(len(wanted)):
        # Every part gets something: the smallest group of the part with most groups.
        if not (side == part).any():
            members = np.flatnonzero(side == np.bincount(side, minlength=len(wanted)).argmax())
            side[members[np.argmin(contents[members, 0])]] = part
    side[side >= len(fractions)] = -1
    return side


class Amended(IndexedDataset):
    """A dataset that keeps no columns of its own to be changed, or one of the user's own class: its images, and its
    annotations as columns that can be amended."""

    def __init__(self, dataset: DetectionDataset) -> None:
        index = Index(
            columns_of(dataset), tuple(dataset.classes), tuple(dataset.category_ids), fingerprint=dataset.fingerprint
        )
        super().__init__(index=index, image_root=Path())
        self.dataset = dataset
        self.protocol = getattr(dataset, "protocol", "coco")

    def path(self, index: int) -> Path:
        """Where the image lies."""
        return Path(self.dataset.info(index).path or "")

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        columns = self.annotations
        all_rows = columns.rows(index % len(self))
        rows = all_rows.start + np.flatnonzero(columns.usable[all_rows])
        h, w = sample.size
        return replace(
            sample,
            boxes=np.clip(columns.boxes[rows], 0, [w, h, w, h]).astype(np.float32),
            labels=columns.labels[rows],
            ignore=columns.ignore[rows],
            masks=masks_of(columns, rows, sample.size),
        )


def amended(dataset: Any, *amendments: str | os.PathLike | Amendments) -> Any:
    """Any dataset with changes of its annotations applied, in the order given; see ``IndexedDataset.amended``."""
    return (dataset if isinstance(dataset, IndexedDataset) else Amended(dataset)).amended(*amendments)
