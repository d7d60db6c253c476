"""Datasets without what somebody has looked at and found wrong: lists of images to leave out and objects to ignore."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .base import DetectionDataset, ImageInfo, own_evaluator
from .combining import Subset
from .errors import DatasetError
from .index import Annotations, columns_of
from .sample import Sample


class Ignoring:
    """A dataset with more objects to ignore: they count neither as found nor as missed, and training skips them as it
    skips crowds.

    annotation_ids: of these objects; ids of the dataset have to be unique. Scores are those of the dataset's protocol;
    WIDER FACE's come from files of their own, which no list changes.

    Raises DatasetError for ids that the dataset does not have.
    """

    def __init__(self, dataset: DetectionDataset, annotation_ids: Collection[Any]) -> None:
        columns = columns_of(dataset)
        known = columns.annotation_ids.tolist()
        if annotation_ids and len(set(known)) < len(known):
            raise DatasetError("ids of annotations are not unique; ignore before joining or repeating datasets")
        _require_known(annotation_ids, known, "annotations")
        chosen = set(annotation_ids)
        self.dataset = dataset
        self.classes, self.category_ids = dataset.classes, dataset.category_ids
        self.protocol = getattr(dataset, "protocol", "coco")
        self._listed = np.array([i in chosen for i in known], bool)

    @property
    def fingerprint(self) -> str:
        """Hash of the whole's and of the ignored objects."""
        return hashlib.sha256(self.dataset.fingerprint.encode() + np.packbits(self._listed).tobytes()).hexdigest()

    @cached_property
    def annotations(self) -> Annotations:
        """The ground truth as columns."""
        columns = columns_of(self.dataset)
        return replace(columns, ignore=columns.ignore | self._listed)

    @property
    def ground_truth(self) -> Path | None:
        """Folder of the three sets of WIDER FACE."""
        return getattr(self.dataset, "ground_truth", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def _rows(self, index: int) -> np.ndarray:
        """Rows of the annotations that are the objects of an image's sample."""
        span = self.annotations.rows(index % len(self))
        rows = np.arange(span.start, span.stop)
        # Samples leave out what covers no pixel, where their columns were not read from them.
        own = isinstance(getattr(self.dataset, "annotations", None), Annotations)
        return rows[self.annotations.usable[rows]] if own else rows

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return replace(sample, ignore=sample.ignore | self._listed[self._rows(index)])

    def info(self, index: int) -> ImageInfo:
        info = self.dataset.info(index)
        rows = self._rows(index)
        return replace(info, labels=self.annotations.labels[rows][~self.annotations.ignore[rows]])

    def evaluator(self) -> Any:
        return own_evaluator(self)


def ignoring(dataset: DetectionDataset, path: str | os.PathLike) -> Ignoring:
    """The dataset without the images of an ignore list, and with its annotations ignored. No file is changed.

    path: JSON, ``{"images": [ids], "annotations": [ids]}``, as ``sdk.fiftyone.exporting.export_ignore`` writes it.

    Raises DatasetError where the file is no such list, or has ids that the dataset does not have.
    """
    images, annotations = read_ignore(path)
    columns = columns_of(dataset)
    known = columns.image_ids.tolist()
    _require_known(images, known, "images")
    left_out = set(images)
    kept = [i for i, image_id in enumerate(known) if image_id not in left_out]
    gone = set(columns.annotation_ids[~np.isin(columns.image_of(), kept)].tolist())
    return Ignoring(Subset(dataset, np.array(kept, np.int64)), [i for i in annotations if i not in gone])


def read_ignore(path: str | os.PathLike) -> tuple[list[Any], list[Any]]:
    """Ids of the images and of the annotations on an ignore list. Raises DatasetError where the file is none."""
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", file=path) from None
    except ValueError as error:
        raise DatasetError(f"not a JSON file ({error})", file=path) from None
    lists = []
    for field in ("images", "annotations"):
        ids = content.get(field) if isinstance(content, dict) else None
        if not isinstance(ids, list) or not all(isinstance(i, int | str) for i in ids):
            raise DatasetError("not an ignore list", file=path, field=field, found=ids, expected="a list of ids")
        lists.append(ids)
    return lists[0], lists[1]


def _require_known(ids: Collection[Any], known: Collection[Any], field: str) -> None:
    unknown = sorted(set(ids) - set(known), key=str)
    if unknown:
        examples = list(known)[:3]
        raise DatasetError(
            f"{len(unknown)} ids are not in the dataset", field=field, found=unknown[:3], expected=f"such as {examples}"
        )
