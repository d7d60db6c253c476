"""The COCO protocol for boxes and masks (https://cocodataset.org/#detection-eval), as pycocotools 2.0 computes it, and
variations of it that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
import pycocotools.mask as coco_mask

from ..datasets.base import DetectionDataset
from ..datasets.errors import DatasetError
from .analysis import FOREGROUND, Compared
from .base import Counts, Report, Value
from .collecting import RLE, CollectingEvaluator
from .figures import add_best_thresholds, changes, mean, no_truth, tables
from .ground_truth import GroundTruth, ground_truth_of
from .matching import (
    COCO_AREAS,
    COCO_THRESHOLDS,
    Matches,
    Pairs,
    Scored,
    Sought,
    box_pairs,
    keep_found,
    outside,
    score,
)
from .weighting import Weighable, weighable_scored

Kind = Literal["bbox", "segm", "boundary"]
# Pairs below the matching threshold are kept for the breakdown of errors, whose background begins here (TIDE).
MINIMUM_IOU = 0.1
BOUNDARY_WIDTH = 0.02
"""Width of a boundary as a share of the image's diagonal (Cheng et al., section 4)."""


@dataclass(frozen=True)
class Coco:
    """The COCO protocol, or a variation of it.

    max_detections: rising counts of detections an image and class at which AR is read; the last is that of all other
    figures. ious: thresholds over which AP and AR are averaged. areas: name to least and largest area in pixels of the
    further figures by size; ``all`` may be among them. classes: names of the only ones scored. agnostic: detections and
    objects count whatever their class. boundary: masks are compared along their boundaries: the lesser of mask IoU and
    boundary IoU (Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021).

    Raises ValueError for counts, thresholds or ranges that mean nothing.
    """

    max_detections: Sequence[int] = (1, 10, 100)
    ious: Sequence[float] = tuple(COCO_THRESHOLDS.tolist())
    areas: Mapping[str, tuple[float, float]] | None = None
    classes: Sequence[str] | None = None
    agnostic: bool = False
    boundary: bool = False

    def __post_init__(self) -> None:
        counts = tuple(self.max_detections)
        if not counts or any(int(n) != n or n < 1 for n in counts) or sorted(set(counts)) != list(counts):
            raise ValueError(f"max_detections: expected rising whole numbers above 0, found {counts}")
        check_ious(self.ious)
        check_areas(self.areas)
        if self.classes is not None and (isinstance(self.classes, str) or not self.classes):
            raise ValueError(f"classes: expected names, found {self.classes!r}")

    def __str__(self) -> str:
        if self == Coco():
            official = "IoU 0.50:0.95, 101 recalls, 100 detections an image and class"
            return f"COCO detection ({official}), equal to pycocotools 2.0"
        return f"COCO detection, varied: {changes(self)}"

    @property
    def most(self) -> int:
        """Detections of an image and class that count."""
        return int(self.max_detections[-1])

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Areas by name, all sizes first."""
        return area_ranges(self.areas)

    def evaluator(self, dataset: DetectionDataset, masks: bool = True) -> CocoEvaluator:
        """Scores a dataset; without ``masks`` its boxes alone. Raises ValueError where boundaries need masks."""
        if self.boundary and not masks:
            raise ValueError("boundary=True: boundaries are those of masks, and there are none to be scored")
        mask_kind: Kind = "boundary" if self.boundary else "segm"
        return CocoEvaluator(dataset, ("bbox", mask_kind) if masks else ("bbox",), self)


def check_ious(ious: Sequence[float]) -> None:
    """Raises ValueError for IoU thresholds that are none."""
    if not len(ious) or not all(MINIMUM_IOU <= iou <= 1 for iou in ious):
        raise ValueError(f"ious: expected thresholds from {MINIMUM_IOU} to 1, found {tuple(ious)!r}")


def check_areas(areas: Mapping[str, tuple[float, float]] | None) -> None:
    """Raises ValueError for ranges of areas that are empty."""
    for name, bounds in (areas or {}).items():
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise ValueError(f"areas: {name}: expected least and largest area in pixels, found {bounds!r}")


def area_ranges(areas: Mapping[str, tuple[float, float]] | None) -> dict[str, tuple[float, float]]:
    """Ranges of areas by name, all sizes first; COCO's where none are given."""
    return COCO_AREAS if areas is None else {"all": COCO_AREAS["all"], **areas}


def check_kinds(kinds: Sequence[str], truth: GroundTruth) -> tuple[Kind, ...]:
    """The kinds to score. Raises ValueError for an unknown one, or for masks where the dataset has none."""
    if not kinds or not set(kinds) <= {"bbox", "segm", "boundary"} or {"segm", "boundary"} <= set(kinds):
        raise ValueError(f"kinds: expected 'bbox', 'segm' or both ('boundary' for 'segm'), found {tuple(kinds)!r}")
    of_masks = set(kinds) - {"bbox"}
    if of_masks and truth.segmentation is None and len(truth.labels):
        raise ValueError(f"kinds: {of_masks.pop()!r} needs masks, and the dataset has none; use kinds=('bbox',)")
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


def boundary(mask: RLE) -> RLE:
    """The pixels of a mask that lie within ``BOUNDARY_WIDTH`` of its contour (the image's border counts as one)."""
    height, width = mask["size"]
    distance = max(1, round(BOUNDARY_WIDTH * float(np.hypot(height, width))))
    pixels = coco_mask.decode(mask)  # type: ignore[arg-type]
    inside = cv2.erode(
        pixels, np.ones((3, 3), np.uint8), iterations=distance, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return coco_mask.encode(np.asfortranarray(pixels - inside))  # type: ignore[return-value]


def boundary_pairs(truth: GroundTruth, crowd: np.ndarray, row: int, masks: list[RLE]) -> Pairs:
    """As ``mask_pairs``, with the lesser of mask IoU and boundary IoU. A crowd has no contour: its masks overlap."""
    pairs = mask_pairs(truth, crowd, row, masks)
    if truth.segmentation is None or not len(pairs):
        return pairs
    found = {d: boundary(masks[d]) for d in np.unique(pairs.detection).tolist()}
    sought = {g: boundary(truth.segmentation(g)) for g in np.unique(pairs.truth).tolist()}
    iou = pairs.iou.copy()
    for i, (d, g) in enumerate(zip(pairs.detection.tolist(), pairs.truth.tolist())):
        if not crowd[g]:
            iou[i] = min(iou[i], float(np.asarray(coco_mask.iou([found[d]], [sought[g]], [0]))[0, 0]))  # type: ignore[arg-type]
    return Pairs(pairs.detection, pairs.truth, iou)[iou >= MINIMUM_IOU]


class CocoEvaluator(CollectingEvaluator):
    """AP and AR of boxes and masks.

    dataset: whose annotations are the ground truth; crowd regions (and whatever else it ignores) count neither as found
    nor as missed. kinds: ``bbox``, ``segm`` or both; ``segm`` wants detections with masks. The area of a detection is
    that of its box for ``bbox`` and of its mask for ``segm``. protocol: a variation of COCO's own; one along boundaries
    has the kind ``boundary`` instead of ``segm``.

    Raises DatasetError where the dataset lacks a class that the protocol names.
    """

    def __init__(
        self, dataset: DetectionDataset, kinds: Sequence[Kind] = ("bbox", "segm"), protocol: Coco | None = None
    ) -> None:
        truth = ground_truth_of(dataset)
        self.kinds = check_kinds(kinds, truth)
        self.protocol = protocol or Coco()
        names = truth.classes if self.protocol.classes is None else self.protocol.classes
        unknown = [name for name in names if name not in truth.classes]
        if unknown:
            expected = ", ".join(map(str, truth.classes))
            raise DatasetError("the dataset has no such class", field="classes", found=unknown[0], expected=expected)
        self._chosen = np.isin(np.asarray(truth.classes), np.asarray(names))

        def overlaps(row: int, masks: list[RLE], areas: np.ndarray) -> Pairs:
            measure = boundary_pairs if "boundary" in self.kinds else mask_pairs
            return measure(truth, truth.crowd, row, masks)

        super().__init__(truth, None if self.kinds == ("bbox",) else overlaps)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what is told apart: of the dataset's classes, or one for all of them."""
        return ("any class",) if self.protocol.agnostic else tuple(self.truth.classes)

    @property
    def _names(self) -> set[str]:
        return set(self.truth.classes if self.protocol.classes is None else self.protocol.classes)

    @property
    def _lowest(self) -> float:
        return FOREGROUND if FOREGROUND in self.protocol.ious else float(min(self.protocol.ious))

    @cached_property
    def _labels(self) -> np.ndarray:
        """(G,) labels of the ground truths, all 0 where classes are not told apart."""
        return np.zeros_like(self.truth.labels) if self.protocol.agnostic else self.truth.labels

    @cached_property
    def _ignored(self) -> np.ndarray:
        truth = self.truth
        return truth.ignore | truth.crowd | ~self._chosen[truth.labels]

    def scored(self, kind: Kind) -> Scored:
        """The matching of one kind, from which all figures come."""
        return self._collected.remembered(kind, lambda: self._score(kind))

    def matches(self, kind: Kind | None = None, iou: float = 0.5) -> Matches:
        """Who found whom at one of the protocol's IoU thresholds."""
        return self.scored(kind or self.kinds[0]).matches(iou)

    def compared(self, kind: Kind | None = None, iou: float | None = None) -> Compared:
        """The table of matched detections at one of the protocol's IoU thresholds, 0.5 or the lowest by default."""
        scored = self.scored(kind or self.kinds[0])
        iou = self._lowest if iou is None else iou
        return Compared.of(replace(self.truth, labels=self._labels), scored.matches(iou), scored.pairs, iou)

    def _score(self, kind: Kind) -> Scored:
        truth, collected = self.truth, self._collected
        found = collected.found(kind)
        if kind == "bbox":
            pairs = box_pairs(
                found.images, collected["box"], truth.offsets, truth.boxes, truth.crowd, minimum=MINIMUM_IOU
            )
        else:
            pairs = collected.pairs
        found, pairs = keep_found(found, pairs, self._chosen[found.labels])
        protocol = self.protocol
        if protocol.agnostic:
            # The official tool goes through the classes in turn, which settles equal scores.
            order = np.lexsort((found.index, np.asarray(truth.category_ids)[found.labels], found.images))
            place = np.argsort(order)
            found = replace(found[order], labels=np.zeros_like(found.labels))
            pairs = Pairs(place[pairs.detection], pairs.truth, pairs.iou)
        ranges = protocol.ranges
        return score(
            found,
            Sought(truth.images, self._labels, outside(truth.areas, ranges) | self._ignored, truth.crowd),
            pairs,
            image_rank=truth.image_rank,
            most=protocol.most,
            ignore_unmatched=outside(found.areas, ranges),
            thresholds=np.asarray(protocol.ious, np.float64),
            num_classes=len(self.classes),
        )

    def weighable(self, kind: Kind | None = None) -> Weighable:
        """The figures as functions of the images' weights."""
        scored, protocol = self.scored(kind or self.kinds[0]), self.protocol
        return weighable_scored(
            scored, len(self.truth.image_ids), list(protocol.ranges), tuple(protocol.max_detections), {}, ""
        )

    def compute(self) -> Report:
        """The twelve figures of each kind (as many as the protocol has counts and sizes), by class, with curves at the
        lowest IoU."""
        scored = {kind: self.scored(kind) for kind in self.kinds}
        metrics: dict[str, Value] = {}
        for kind, one in scored.items():
            metrics.update(coco_figures(one, kind, self.protocol))
        per_class, curves, explanations = tables(scored, self.classes, list(self.protocol.ranges))
        for kind in self.kinds:
            add_best_thresholds(per_class, self.compared(kind, self._lowest), self.classes, kind)
        notes = self._collected.notes() + explanations
        if (self.truth.annotation_ids == 0).any():
            notes.append("an annotation has id 0, which pycocotools takes for unmatched; its figures would be lower")
        chosen = {name: row for name, row in per_class.items() if self.protocol.agnostic or name in self._names}
        return Report(
            protocol=str(self.protocol),
            metrics=metrics,
            counts=Counts(
                len(self.truth.image_ids), len(self.truth.labels), len(self._collected), int(self._ignored.sum())
            ),
            per_class=chosen,
            curves=curves,
            notes=tuple(notes),
            evaluator=self,
        )


def coco_figures(scored: Scored, kind: str, protocol: Coco) -> dict[str, Value]:
    """AP, AP50 and AP75 where they are among the thresholds, AP by size, AR at each count of detections, AR by size."""
    curves = scored.curves
    present = curves.positives > 0
    precision = np.moveaxis(curves.precision, 2, -1)  # (A, T, R, K)
    sizes = list(enumerate(protocol.ranges))[1:]
    figures = {"AP": mean(precision[0], present[0], no_truth())}
    for t in np.flatnonzero(np.isin(np.round(scored.thresholds, 6), (0.5, 0.75))):
        figures[f"AP{scored.thresholds[t] * 100:.0f}"] = mean(precision[0, t], present[0], no_truth())
    for area, size in sizes:
        figures[f"AP{size}"] = mean(precision[area], present[area], no_truth(size))
    for most in protocol.max_detections[:-1]:
        figures[f"AR@{most}"] = mean(scored.recall_at(most)[0], present[0], no_truth())
    figures[f"AR@{protocol.most}"] = mean(curves.recall[0], present[0], no_truth())
    for area, size in sizes:
        figures[f"AR{size}"] = mean(curves.recall[area], present[area], no_truth(size))
    return {f"{kind}/{name}": value for name, value in figures.items()}
