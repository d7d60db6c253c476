"""The LVIS protocol for boxes and masks (Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation",
section 2.3), as the package lvis 0.5.3 computes it for annotations of v0.5 and v1.

It is COCO's matching with three rules for classes that are not annotated in every image. A detection of a class that
is neither present nor verified as absent in its image is left out. One that finds nothing does not count where its
class is not annotated exhaustively. An image keeps 300 detections over all classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.errors import DatasetError
from ..datasets.index import Ragged, columns_of
from .analysis import FOREGROUND, Compared
from .base import Counts, Report, Value
from .coco import MINIMUM_IOU, Kind, area_ranges, check_areas, check_ious, check_kinds, mask_pairs
from .collecting import RLE, CollectingEvaluator
from .figures import add_best_thresholds, changes, mean, no_truth, tables
from .ground_truth import ground_truth_of
from .matching import (
    COCO_THRESHOLDS,
    Matches,
    Pairs,
    Scored,
    Sought,
    box_pairs,
    keep_found,
    outside,
    rank_in_groups,
    score,
)
from .weighting import Weighable, weighable_scored

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass(frozen=True)
class Lvis:
    """The LVIS protocol, or a variation of it.

    max_detections: an image, over all classes; negative for as many as there are. ious: thresholds over which figures
    are averaged. areas: name to least and largest area in pixels of the figures by size.

    Raises ValueError for a count, thresholds or ranges that mean nothing.
    """

    max_detections: int = 300
    ious: Sequence[float] = tuple(COCO_THRESHOLDS.tolist())
    areas: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        if int(self.max_detections) != self.max_detections or not self.max_detections:
            raise ValueError(f"max_detections: expected a whole number, found {self.max_detections}")
        check_ious(self.ious)
        check_areas(self.areas)

    def __str__(self) -> str:
        if self == Lvis():
            return "LVIS (IoU 0.50:0.95, 101 recalls, 300 detections an image, federated classes), equal to lvis 0.5.3"
        return f"LVIS, varied: {changes(self)}"

    @property
    def most(self) -> int:
        """Detections of an image that count."""
        return self.max_detections if self.max_detections > 0 else np.iinfo(np.int64).max

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Areas by name, all sizes first."""
        return area_ranges(self.areas)

    def evaluator(self, dataset: DetectionDataset, masks: bool = True) -> LvisEvaluator:
        """Scores a dataset; without ``masks`` its boxes alone."""
        return LvisEvaluator(dataset, ("bbox", "segm") if masks else ("bbox",), self)


def _image_class_table(rows: Ragged, num_classes: int) -> np.ndarray:
    """Sorted keys ``image * K + class`` of a column of classes by image."""
    images = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
    return np.unique(images * num_classes + np.asarray(rows.values, np.int64))


class LvisEvaluator(CollectingEvaluator):
    """AP of boxes and masks by size and by class frequency.

    dataset: with the columns ``neg_labels``, ``not_exhaustive_labels`` and ``frequencies`` of LVIS annotations.
    kinds: ``bbox``, ``segm`` or both; ``segm`` wants detections with masks. The area of a detection is that of its box
    for ``bbox`` and of its mask for ``segm``. protocol: a variation of LVIS's own.

    Raises DatasetError where a column is missing.
    """

    def __init__(
        self, dataset: DetectionDataset, kinds: Sequence[Kind] = ("bbox", "segm"), protocol: Lvis | None = None
    ) -> None:
        truth = ground_truth_of(dataset)
        self.kinds = check_kinds(kinds, truth)
        self.protocol = protocol or Lvis()
        self.classes = tuple(truth.classes)
        columns = columns_of(dataset)
        negative, incomplete, frequencies = columns.neg_labels, columns.not_exhaustive_labels, columns.frequencies
        if negative is None or incomplete is None or frequencies is None:
            raise DatasetError(
                "not an LVIS dataset", expected="neg_category_ids, not_exhaustive_category_ids and frequency"
            )
        classes = len(truth.classes)
        self.frequencies = np.asarray(frequencies)
        self._annotated = truth.areas > 0
        present = truth.images[self._annotated] * classes + truth.labels[self._annotated]
        self._judged = np.union1d(_image_class_table(negative, classes), present)
        self._incomplete = _image_class_table(incomplete, classes)
        # Crowds are ordinary objects here: each is found once.
        self._no_crowd = np.zeros(len(truth.labels), bool)

        def overlaps(row: int, masks: list[RLE], areas: np.ndarray) -> Pairs:
            return mask_pairs(truth, self._no_crowd, row, masks)

        super().__init__(truth, overlaps if "segm" in self.kinds else None)

    def scored(self, kind: Kind) -> Scored:
        """The matching of one kind, from which all figures come."""
        return self._collected.remembered(kind, lambda: self._score(kind))

    def matches(self, kind: Kind | None = None, iou: float = 0.5) -> Matches:
        """Who found whom at one of the protocol's IoU thresholds. Detections that the protocol leaves out are not in
        it."""
        return self.scored(kind or self.kinds[0]).matches(iou)

    def compared(self, kind: Kind | None = None, iou: float | None = None) -> Compared:
        """The table of matched detections at one of the protocol's IoU thresholds, 0.5 or the lowest by default."""
        scored = self.scored(kind or self.kinds[0])
        if iou is None:
            iou = FOREGROUND if FOREGROUND in self.protocol.ious else float(min(self.protocol.ious))
        return Compared.of(self.truth, scored.matches(iou), scored.pairs, iou)

    def _score(self, kind: Kind) -> Scored:
        truth, collected = self.truth, self._collected
        found = collected.found(kind)
        if kind == "bbox":
            pairs = box_pairs(
                found.images, collected["box"], truth.offsets, truth.boxes, self._no_crowd, minimum=MINIMUM_IOU
            )
        else:
            pairs = collected.pairs
        # Annotations without area do not exist for the official tool: nothing may match them.
        pairs = pairs[self._annotated[pairs.truth]]
        by_image = np.lexsort((found.index, -found.scores, found.images))
        key = found.images.astype(np.int64) * len(truth.classes) + found.labels
        keep = rank_in_groups(by_image, found.images) < self.protocol.most
        keep &= np.isin(key, self._judged) & (found.areas > 0)
        found, pairs = keep_found(found, pairs, keep)
        ignored, ranges = self._ignored, self.protocol.ranges
        return score(
            found,
            Sought(truth.images, truth.labels, outside(truth.areas, ranges) | ignored, self._no_crowd),
            pairs,
            image_rank=truth.image_rank,
            most=self.protocol.most,
            ignore_unmatched=outside(found.areas, ranges) | np.isin(key[keep], self._incomplete),
            thresholds=np.asarray(self.protocol.ious, np.float64),
            num_classes=len(truth.classes),
        )

    def weighable(self, kind: Kind | None = None) -> Weighable:
        """The figures as functions of the images' weights."""
        scored, protocol = self.scored(kind or self.kinds[0]), self.protocol
        groups = {letter: self.frequencies == letter for letter in FREQUENCIES}
        most = protocol.max_detections
        return weighable_scored(scored, len(self.truth.image_ids), list(protocol.ranges), (most,), groups, f"@{most}")

    @property
    def _ignored(self) -> np.ndarray:
        return (self.truth.ignore & ~self.truth.crowd) | ~self._annotated

    def compute(self) -> Report:
        """The thirteen figures of each kind, by class, with curves at IoU 0.5."""
        truth = self.truth
        scored = {kind: self.scored(kind) for kind in self.kinds}
        per_class, curves, explanations = tables(scored, truth.classes, list(self.protocol.ranges))
        for kind in self.kinds:
            add_best_thresholds(per_class, self.compared(kind), self.classes, kind)
        notes = self._collected.notes() + explanations
        metrics: dict[str, Value] = {}
        for kind, one in scored.items():
            metrics.update(self._figures(one, kind))
            left_out = len(self._collected) - len(one.found)
            if left_out:
                notes.append(
                    f"{kind}: {left_out} detections are left out: of classes that are not verified in their image, "
                    f"without area, or beyond {self.protocol.max_detections} an image"
                )
        return Report(
            protocol=str(self.protocol),
            metrics=metrics,
            counts=Counts(len(truth.image_ids), len(truth.labels), len(self._collected), int(self._ignored.sum())),
            per_class=per_class,
            curves=curves,
            notes=tuple(notes),
            evaluator=self,
        )

    def _figures(self, scored: Scored, kind: str) -> dict[str, Value]:
        curves = scored.curves
        present = curves.positives > 0
        precision = np.moveaxis(curves.precision, 2, -1)  # (A, T, R, K)
        figures = {"AP": mean(precision[0], present[0], no_truth())}
        for t in np.flatnonzero(np.isin(np.round(scored.thresholds, 6), (0.5, 0.75))):
            figures[f"AP{scored.thresholds[t] * 100:.0f}"] = mean(precision[0, t], present[0], no_truth())
        sizes = list(enumerate(self.protocol.ranges))[1:]
        most = self.protocol.max_detections
        for area, size in sizes:
            figures[f"AP{size}"] = mean(precision[area], present[area], no_truth(size))
        for letter, word in FREQUENCIES.items():
            own = present[0] & (self.frequencies == letter)
            figures[f"AP{letter}"] = mean(precision[0], own, f"no ground truth of a {word} class")
        figures[f"AR@{most}"] = mean(curves.recall[0], present[0], no_truth())
        for area, size in sizes:
            figures[f"AR{size}@{most}"] = mean(curves.recall[area], present[area], no_truth(size))
        return {f"{kind}/{name}": value for name, value in figures.items()}
