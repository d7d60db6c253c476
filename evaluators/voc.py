"""The Pascal VOC protocol: average precision at fixed IoU, as in the devkits of 2007 (11 points) and 2010 on (area).

Source: Everingham et al., "The Pascal Visual Object Classes Challenge", section 4.2, and the devkit's VOCevaldet.m.
Each detection looks at the ground truth of highest IoU, free or not: above the threshold it is true, the second on the
same object is false, and on a difficult object it does not count.

Boxes of the devkit count pixels from 1 and include their last pixel, so that a side is ``max - min + 1``. Boxes of this
package start one lower and exclude their end: the same side is ``x2 - x1``, and the protocol's IoU is the plain one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.errors import DatasetError
from .analysis import BACKGROUND, Compared
from .base import Counts, Report, Value
from .collecting import CollectingEvaluator
from .figures import add_best_thresholds, no_truth
from .ground_truth import ground_truth_of
from .matching import Found, Matches, Pairs, best_pairs, box_pairs, rank_in_groups
from .weighting import Figure, Weighable, weighable_matches

if TYPE_CHECKING:
    from ..models.structures import Detections

Metric = Literal["area", "11point"]
_METRIC_NAMES = {"area": "area under the monotone curve (VOC2010 and later)", "11point": "mean of 11 points (VOC2007)"}


@dataclass(frozen=True)
class Voc:
    """The Pascal VOC protocol: ``area`` under the curve (2010 on) or ``11point`` (2007), at each of ``ious``.

    Raises ValueError for another metric or thresholds that are none.
    """

    metric: Metric = "area"
    ious: Sequence[float] = (0.5,)

    def __post_init__(self) -> None:
        if self.metric not in _METRIC_NAMES:
            raise ValueError(f"metric: expected 'area' or '11point', found {self.metric!r}")
        if not self.ious or not all(0 < iou < 1 for iou in self.ious):
            raise ValueError(f"ious: expected thresholds between 0 and 1, found {tuple(self.ious)!r}")

    def __str__(self) -> str:
        thresholds = ", ".join(f"{iou:g}" for iou in self.ious)
        return f"Pascal VOC, {_METRIC_NAMES[self.metric]}, IoU above {thresholds}"

    def evaluator(self, dataset: DetectionDataset, masks: bool = False) -> VocEvaluator:
        """Scores the boxes of a dataset."""
        return VocEvaluator(dataset, self.metric, self.ious)


def average_precision(recall: np.ndarray, precision: np.ndarray, metric: Metric) -> float:
    """Area under the monotone curve, or the mean of the best precisions at recall 0, 0.1 ... 1. recall ascends."""
    if metric == "11point":
        reached = [precision[recall >= level] for level in np.arange(0.0, 1.1, 0.1)]
        return float(sum(part.max() / 11 for part in reached if len(part)))
    recall = np.concatenate([[0.0], recall, [1.0]])
    envelope = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


@dataclass(frozen=True)
class _Class:
    """What became of the detections of one class at one threshold, best score first."""

    positives: int
    scores: np.ndarray
    true: np.ndarray
    false: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        return np.cumsum(self.true) / max(self.positives, 1)

    @property
    def precision(self) -> np.ndarray:
        true = np.cumsum(self.true)
        return true / np.maximum(true + np.cumsum(self.false), np.finfo(np.float64).eps)


class VocEvaluator(CollectingEvaluator):
    """Mean average precision over classes.

    dataset: objects that it ignores (``difficult``) count neither as found nor as missed. metric: ``area`` or
    ``11point``; the report names it. ious: thresholds, which IoU must exceed; the first one's mAP is the main figure.
    """

    def __init__(self, dataset: DetectionDataset, metric: Metric = "area", ious: Sequence[float] = (0.5,)) -> None:
        self.protocol = Voc(metric, tuple(ious))
        super().__init__(ground_truth_of(dataset))
        self.metric: Metric = metric
        self.ious = tuple(ious)
        self.classes = tuple(self.truth.classes)

    def read_results(self, folder: str | Path) -> Iterator[tuple[Any, Detections]]:
        """The devkit's results files ``comp4_det_<split>_<class>.txt``, image by image: lines of image id, score, xmin,
        ymin, xmax, ymax, counted from 1. Images in no file have no detections; classes without a file are not detected.

        Raises DatasetError naming file and line.
        """
        import torch

        from ..models.structures import Detections

        labels = {name: label for label, name in enumerate(self.truth.classes)}
        ids = {str(image_id): image_id for image_id in self.truth.image_ids}
        rows: dict[Any, list[tuple[float, ...]]] = {image_id: [] for image_id in self.truth.image_ids}
        files = sorted(Path(folder).glob("*_det_*_*.txt"))
        if not files:
            raise DatasetError("no results files", file=folder, expected="comp4_det_<split>_<class>.txt")
        for file in files:
            name = file.stem.split("_")[-1]
            if name not in labels:
                raise DatasetError("no such class", file=file, found=name, expected=", ".join(self.truth.classes))
            for number, line in enumerate(file.read_text().splitlines(), 1):
                try:
                    image_id, *values = line.split()
                    score, x1, y1, x2, y2 = map(float, values)
                except ValueError:
                    raise DatasetError(
                        "not a detection", file=file, where=f"line {number}", found=line, expected="id, score, 4 ends"
                    ) from None
                if image_id not in ids:
                    raise DatasetError("image is not in the dataset", file=file, where=f"line {number}", found=image_id)
                rows[ids[image_id]].append((labels[name], score, x1 - 1, y1 - 1, x2, y2))
        for image_id, entries in rows.items():
            table = torch.tensor(entries, dtype=torch.float64).reshape(-1, 6)
            yield image_id, Detections(boxes=table[:, 2:], scores=table[:, 1], labels=table[:, 0].long())

    def _best(self, found: Found) -> tuple[np.ndarray, np.ndarray]:
        """(D,) row of the ground truth of the same class with the highest IoU, -1 for none; the IoU."""
        pairs = self._pairs(found, np.finfo(np.float64).tiny)
        pairs = pairs[found.labels[pairs.detection] == self.truth.labels[pairs.truth]]
        return best_pairs(pairs, len(found))

    def _pairs(self, found: Found, minimum: float) -> Pairs:
        """Overlaps between all classes."""
        truth, boxes = self.truth, self._collected["box"]
        never = np.zeros(len(truth.labels), bool)
        return box_pairs(found.images, boxes, truth.offsets, truth.boxes, never, minimum=minimum)

    def matches(self, kind: str = "bbox", iou: float | None = None) -> Matches:
        """Who found whom at an IoU threshold, the main one by default."""
        threshold = self.ious[0] if iou is None else iou
        found = self._collected.found("bbox")
        best, overlap = self._best(found)
        return self._matches(found, best, overlap, threshold)

    def compared(self, kind: str = "bbox", iou: float | None = None) -> Compared:
        """The table of matched detections at an IoU threshold, the main one by default."""
        iou = self.ious[0] if iou is None else iou
        matches = self.matches(iou=iou)
        pairs = self._pairs(matches.found, BACKGROUND)
        return Compared.of(self.truth, matches, pairs, iou)

    def _matches(self, found: Found, best: np.ndarray, overlap: np.ndarray, threshold: float) -> Matches:
        difficult = self.truth.ignore | self.truth.crowd
        hit = overlap > threshold
        on_difficult = np.zeros(len(found), bool)
        on_difficult[hit] = difficult[best[hit]]
        order = self._order(found)
        # The first detection on an object has it; the others on it are false.
        on_object = order[(hit & ~on_difficult)[order]]
        by_object = on_object[np.argsort(best[on_object], kind="stable")]
        first = np.zeros(len(found), bool)
        first[by_object] = rank_in_groups(np.arange(len(by_object)), best[by_object]) == 0
        truth = np.where(first | on_difficult, best, -1)
        detection = np.full(len(self.truth.labels), -1, np.int64)
        worst_first = order[truth[order] >= 0][::-1]
        detection[truth[worst_first]] = worst_first
        return Matches(found, truth, np.where(truth >= 0, overlap, 0.0), on_difficult, detection, difficult)

    def weighable(self, kind: str = "bbox") -> Weighable:
        """The figures as functions of the images' weights."""
        truth, found = self.truth, self._collected.found("bbox")
        best, overlap = self._best(found)
        return weighable_matches(
            lambda iou: self._matches(found, best, overlap, iou),  # type: ignore[arg-type]
            {f"mAP{iou * 100:g}": Figure((iou,)) for iou in self.ious},
            truth.images,
            truth.labels,
            self._order(found),
            self.metric,
            classes=len(truth.classes),
            images=len(truth.image_ids),
        )

    def _order(self, found: Found) -> np.ndarray:
        return np.lexsort((found.index, self.truth.image_rank[found.images], -found.scores, found.labels))

    def _classes(self, matches: Matches) -> list[_Class]:
        found, order = matches.found, self._order(matches.found)
        bounds = np.searchsorted(found.labels[order], np.arange(len(self.truth.classes) + 1))
        positives = np.bincount(self.truth.labels[~matches.truth_ignored], minlength=len(self.truth.classes))
        parts = [order[start:stop] for start, stop in pairwise(bounds)]
        true, false = matches.true_positive, matches.false_positive
        return [_Class(int(n), found.scores[own], true[own], false[own]) for n, own in zip(positives, parts)]

    def compute(self) -> Report:
        """mAP at each threshold, average precision and best score threshold by class, curves at the first threshold."""
        found = self._collected.found("bbox")
        best, overlap = self._best(found)
        metrics: dict[str, Value] = {}
        per_class: dict[str, dict[str, Value]] = {name: {} for name in self.truth.classes}
        curves: dict[str, dict[str, Any]] = {}
        ignored = self.truth.ignore | self.truth.crowd
        notes = self._collected.notes()
        for iou in self.ious:
            matches = self._matches(found, best, overlap, iou)
            name = f"bbox/AP{iou * 100:g}"
            figures = []
            for title, one in zip(self.truth.classes, self._classes(matches)):
                if not one.positives:
                    per_class[title][name] = Value(None, no_truth())
                    continue
                figures.append(average_precision(one.recall, one.precision, self.metric))
                per_class[title][name] = Value(figures[-1])
                if iou == self.ious[0]:
                    curves[title] = {
                        "bbox/recall": one.recall,
                        "bbox/precision": one.precision,
                        "bbox/thresholds": one.scores,
                    }
            metrics[f"bbox/mAP{iou * 100:g}"] = Value(float(np.mean(figures))) if figures else Value(None, no_truth())
            if len(found) and figures and not matches.true_positive.any():
                notes.append(f"no prediction matched at IoU above {iou:g}")
        if not len(found):
            notes.append("there are no detections")
        add_best_thresholds(per_class, self.compared(iou=self.ious[0]), self.classes, "bbox")
        return Report(
            protocol=str(self.protocol),
            metrics=metrics,
            counts=Counts(len(self.truth.image_ids), len(self.truth.labels), len(found), int(ignored.sum())),
            per_class=per_class,
            curves=curves,
            notes=tuple(notes),
            evaluator=self,
        )
