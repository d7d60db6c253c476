"""The COCO protocol for boxes and masks (https://cocodataset.org/#detection-eval), as pycocotools 2.0 computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pycocotools.mask as coco_mask

from ..datasets.base import DetectionDataset
from .analysis import FOREGROUND, Compared
from .base import Counts, Report, Value
from .collecting import RLE, CollectingEvaluator
from .figures import mean, no_truth, tables
from .ground_truth import GroundTruth, ground_truth_of
from .matching import (
    COCO_AREAS,
    COCO_THRESHOLDS,
    Matches,
    Pairs,
    Scored,
    Sought,
    box_pairs,
    outside,
    score,
)

Kind = Literal["bbox", "segm"]
PROTOCOL = "COCO detection (IoU 0.50:0.95, 101 recalls, 100 detections an image and class), equal to pycocotools 2.0"
# Pairs below the matching threshold are kept for the breakdown of errors, whose background begins here (TIDE).
MINIMUM_IOU = 0.1
MOST = 100


def check_kinds(kinds: Sequence[str], truth: GroundTruth) -> tuple[Kind, ...]:
    """The kinds to score. Raises ValueError for an unknown one, or for masks where the dataset has none."""
    if not kinds or not set(kinds) <= {"bbox", "segm"}:
        raise ValueError(f"kinds: expected 'bbox', 'segm' or both, found {tuple(kinds)!r}")
    if "segm" in kinds and truth.segmentation is None and len(truth.labels):
        raise ValueError("kinds: 'segm' needs masks, and the dataset has none; use kinds=('bbox',)")
    return tuple(kinds)  # type: ignore[return-value]


def mask_pairs(truth: GroundTruth, crowd: np.ndarray, row: int, masks: list[RLE]) -> Pairs:
    """Overlaps of the masks of image ``row`` with its ground truths, IoU 0.1 and more."""
    start, stop = int(truth.offsets[row]), int(truth.offsets[row + 1])
    if start == stop or truth.segmentation is None:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    own = [truth.segmentation(i) for i in range(start, stop)]
    iou = np.asarray(coco_mask.iou(masks, own, crowd[start:stop].tolist()))  # type: ignore[arg-type]
    d, g = np.nonzero(iou >= MINIMUM_IOU)
    return Pairs(d, g + start, iou[d, g])


class CocoEvaluator(CollectingEvaluator):
    """AP and AR of boxes and masks.

    dataset: whose annotations are the ground truth; crowd regions (and whatever else it ignores) count neither as found
    nor as missed. kinds: ``bbox``, ``segm`` or both; ``segm`` wants detections with masks. The area of a detection is
    that of its box for ``bbox`` and of its mask for ``segm``.
    """

    def __init__(self, dataset: DetectionDataset, kinds: Sequence[Kind] = ("bbox", "segm")) -> None:
        truth = ground_truth_of(dataset)
        self.kinds = check_kinds(kinds, truth)

        def overlaps(row: int, masks: list[RLE], areas: np.ndarray) -> Pairs:
            return mask_pairs(truth, truth.crowd, row, masks)

        super().__init__(truth, overlaps if "segm" in self.kinds else None)

    def scored(self, kind: Kind) -> Scored:
        """The matching of one kind, from which all figures come."""
        return self._collected.remembered(kind, lambda: self._score(kind))

    def matches(self, kind: Kind | None = None, iou: float = 0.5) -> Matches:
        """Who found whom at one of the protocol's IoU thresholds."""
        return self.scored(kind or self.kinds[0]).matches(iou)

    def compared(self, kind: Kind | None = None) -> Compared:
        """What the breakdown of errors and the confusion matrix are made from."""
        scored = self.scored(kind or self.kinds[0])
        return Compared(scored.matches(FOREGROUND), scored.pairs, self.truth.labels, scored.order)

    def _score(self, kind: Kind) -> Scored:
        truth, collected = self.truth, self._collected
        found = collected.found(kind)
        if kind == "bbox":
            pairs = box_pairs(
                found.images, collected["box"], truth.offsets, truth.boxes, truth.crowd, minimum=MINIMUM_IOU
            )
        else:
            pairs = collected.pairs
        ignored = truth.ignore | truth.crowd
        return score(
            found,
            Sought(truth.images, truth.labels, outside(truth.areas) | ignored, truth.crowd),
            pairs,
            image_rank=truth.image_rank,
            most=MOST,
            ignore_unmatched=outside(found.areas),
            thresholds=COCO_THRESHOLDS,
            num_classes=len(truth.classes),
        )

    def compute(self) -> Report:
        """The twelve figures of each kind, by class, with curves at IoU 0.5."""
        scored = {kind: self.scored(kind) for kind in self.kinds}
        metrics: dict[str, Value] = {}
        for kind, one in scored.items():
            metrics.update(twelve_figures(one, kind))
        per_class, curves, explanations = tables(scored, self.truth.classes, list(COCO_AREAS))
        notes = self._collected.notes() + explanations
        ignored = self.truth.ignore | self.truth.crowd
        if (self.truth.annotation_ids == 0).any():
            notes.append("an annotation has id 0, which pycocotools takes for unmatched; its figures would be lower")
        return Report(
            protocol=PROTOCOL,
            metrics=metrics,
            counts=Counts(len(self.truth.image_ids), len(self.truth.labels), len(self._collected), int(ignored.sum())),
            per_class=per_class,
            curves=curves,
            notes=tuple(notes),
        )


def twelve_figures(scored: Scored, kind: str) -> dict[str, Value]:
    """AP, AP50, AP75, AP by size, AR of 1, 10 and 100 detections, AR by size."""
    curves = scored.curves
    present = curves.positives > 0
    t50, t75 = scored.threshold_index(0.5), scored.threshold_index(0.75)
    precision = np.moveaxis(curves.precision, 2, -1)  # (A, T, R, K)
    sizes = list(COCO_AREAS)
    figures = {
        "AP": mean(precision[0], present[0], no_truth()),
        "AP50": mean(precision[0, t50], present[0], no_truth()),
        "AP75": mean(precision[0, t75], present[0], no_truth()),
    }
    for area, size in list(enumerate(sizes))[1:]:
        figures[f"AP{size}"] = mean(precision[area], present[area], no_truth(size))
    for most in (1, 10):
        figures[f"AR@{most}"] = mean(scored.recall_at(most)[0], present[0], no_truth())
    figures[f"AR@{MOST}"] = mean(curves.recall[0], present[0], no_truth())
    for area, size in list(enumerate(sizes))[1:]:
        figures[f"AR{size}"] = mean(curves.recall[area], present[area], no_truth(size))
    return {f"{kind}/{name}": value for name, value in figures.items()}
