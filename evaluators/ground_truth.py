"""The ground truth of a dataset as every protocol reads it: flat columns, one row an annotation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.index import columns_of


@dataclass(frozen=True)
class GroundTruth:
    """Annotations of M images, N in all; those of image i are rows ``offsets[i]:offsets[i + 1]``.

    image_ids: M ids. sizes: (M, 2) height and width. boxes: (N, 4) float64 x, y, width, height.
    labels: (N,) in 0..K-1. crowd, ignore: (N,) bool. areas: (N,) float64 pixels. annotation_ids: (N,).
    segmentation: row to compressed run lengths, none where the dataset has no masks. classes: K names.
    category_ids: K original ids.
    """

    image_ids: Sequence[Any]
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray
    annotation_ids: np.ndarray
    segmentation: Callable[[int], dict[str, Any]] | None
    classes: Sequence[str]
    category_ids: Sequence[int]

    @cached_property
    def position(self) -> dict[Any, int]:
        """Image id to row of ``sizes``."""
        return {image_id: i for i, image_id in enumerate(self.image_ids)}

    @cached_property
    def image_rank(self) -> np.ndarray:
        """(M,) place of each image in the order of ids, by which equal scores are ordered."""
        try:
            order = sorted(range(len(self.image_ids)), key=lambda i: self.image_ids[i])
        except TypeError:  # Ids of several types have no order of their own.
            order = range(len(self.image_ids))
        rank = np.empty(len(self.image_ids), np.int64)
        rank[list(order)] = np.arange(len(rank))
        return rank

    @cached_property
    def images(self) -> np.ndarray:
        """(N,) image row of each annotation."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.offsets))


def ground_truth_of(dataset: DetectionDataset) -> GroundTruth:
    """Reads a dataset's annotation columns; images without objects stay in."""
    columns = columns_of(dataset)
    if columns.box_format == "xywh":  # The file's own numbers: a difference of sums would change their last bit.
        boxes = np.asarray(columns.stated_boxes, np.float64).reshape(-1, 4)
    else:
        boxes = np.array(columns.boxes, np.float64).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
    return GroundTruth(
        image_ids=[i.item() if isinstance(i, np.generic) else i for i in columns.image_ids],
        sizes=np.asarray(columns.image_sizes).reshape(-1, 2),
        offsets=np.asarray(columns.image_offsets, np.int64),
        boxes=boxes,
        labels=np.asarray(columns.labels, np.int64),
        crowd=np.asarray(columns.crowd, bool),
        ignore=np.asarray(columns.ignore, bool),
        areas=np.asarray(columns.areas, np.float64),
        annotation_ids=np.asarray(columns.annotation_ids),
        segmentation=None if columns.segments is None else columns.segmentation,
        classes=tuple(dataset.classes),
        category_ids=tuple(dataset.category_ids),
    )
