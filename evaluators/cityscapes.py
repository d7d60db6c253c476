"""The Cityscapes instance-level protocol, as ``evalInstanceLevelSemanticLabeling`` of cityscapesScripts 2 computes it,
from masks in memory.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", section 4.2. A prediction
matches an instance of its class when their IoU exceeds the threshold; of several on one instance the most confident is
true, the others are false. One that matches nothing is false unless too much of it lies on void pixels, on groups or on
instances of fewer than 100 pixels. The official names of images, files and folders play no part.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pycocotools.mask as coco_mask

from ..datasets.base import DetectionDataset
from ..datasets.cityscapes import INSTANCES, PHOTO
from ..datasets.errors import DatasetError
from ..datasets.masks import encode
from ..datasets.transforms.annotations import mask_boxes
from .analysis import BACKGROUND, FOREGROUND, Compared
from .base import Counts, Report, Value
from .collecting import RLE, CollectingEvaluator, mask_areas
from .figures import add_best_thresholds, changes, no_truth
from .ground_truth import ground_truth_of
from .matching import Found, Matches, Pairs
from .weighting import Figure, Weighable, weighable_matches

if TYPE_CHECKING:
    from ..models.structures import Detections

THRESHOLDS = np.arange(0.5, 1.0, 0.05)
# Label ids that the official table marks as ignored in evaluation.
VOID = (-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
_VOID_ROW = -1


@dataclass(frozen=True)
class Cityscapes:
    """The Cityscapes instance-level protocol, or a variation of it.

    ious: thresholds that IoU must exceed, over which AP is averaged. smallest: pixels below which an instance is not
    sought.

    Raises ValueError for thresholds that are none.
    """

    ious: Sequence[float] = tuple(THRESHOLDS.tolist())
    smallest: int = 100

    def __post_init__(self) -> None:
        if not self.ious or not all(0.5 <= iou < 1 for iou in self.ious):
            # Below 0.5 several instances could lie in one prediction, which the protocol does not settle.
            raise ValueError(f"ious: expected thresholds from 0.5 to below 1, found {tuple(self.ious)!r}")

    def __str__(self) -> str:
        if self == Cityscapes():
            official = "IoU above 0.50:0.95, regions of 100 pixels and more"
            return f"Cityscapes instance-level ({official}), equal to cityscapesScripts 2"
        return f"Cityscapes instance-level, varied: {changes(self)}"

    def evaluator(self, dataset: DetectionDataset, masks: bool = True) -> CityscapesEvaluator:
        """Scores the masks of a dataset."""
        return CityscapesEvaluator(dataset, self)


def instance_map(photo: Path) -> Path:
    """Where the official layout keeps the instance map of a photo."""
    city, split = photo.parent.name, photo.parent.parent.name
    return photo.parents[3] / "gtFine" / split / city / (photo.name.removesuffix(PHOTO) + INSTANCES)


def average_precision(true: np.ndarray, false: np.ndarray, missed: int) -> float:
    """Step-wise area under the raw precision-recall curve, each step as wide as half the way to both neighbours.

    true, false: scores of true and false predictions. missed: instances that nothing matched.
    """
    scores = np.concatenate([true, false])
    is_true = np.concatenate([np.ones(len(true)), np.zeros(len(false))])
    order = np.argsort(scores, kind="stable")
    _, first = np.unique(scores[order], return_index=True)
    # How many true ones lie below each distinct score.
    below = np.concatenate([[0.0], np.cumsum(is_true[order])])[first]
    tp = len(true) - below
    precision = np.append(tp / (len(scores) - first), 1.0)
    recall = np.append(tp / max(len(true) + missed, 1), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(np.dot(precision, (padded[:-2] - padded[2:]) / 2))


class CityscapesEvaluator(CollectingEvaluator):
    """AP and AP50 of instance masks.

    dataset: its ignored objects are groups. Where its photos lie in the official layout the instance maps beside them
    tell which pixels are void; without the maps nothing is, and the report says so.
    """

    def __init__(self, dataset: DetectionDataset, protocol: Cityscapes | None = None) -> None:
        truth = ground_truth_of(dataset)
        self.protocol = protocol or Cityscapes()
        self.classes = tuple(truth.classes)
        if truth.segmentation is None:
            raise ValueError("the Cityscapes protocol needs masks, and the dataset has none")
        segmentation = truth.segmentation
        photos = [Path(dataset.info(i).path or "") for i in range(len(dataset))]
        self._maps = [instance_map(photo) if len(photo.parents) > 3 else None for photo in photos]

        def overlaps(row: int, masks: list[RLE], areas: np.ndarray) -> Pairs:
            start, stop = int(truth.offsets[row]), int(truth.offsets[row + 1])
            regions = [segmentation(i) for i in range(start, stop)]
            rows = np.arange(start, stop)
            void = self._void(row)
            if void is not None:
                regions.append(encode(void))
                rows = np.append(rows, _VOID_ROW)
            if not regions:
                return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
            # Overlap with a crowd is the share of the detection that lies on it: exact pixels again after rounding.
            share = np.asarray(coco_mask.iou(masks, regions, [1] * len(regions)))  # type: ignore[arg-type]
            pixels = np.rint(np.nan_to_num(share) * areas[:, None])
            d, g = np.nonzero(pixels)
            return Pairs(d, rows[g], pixels[d, g])

        super().__init__(truth, overlaps)

    def _void(self, row: int) -> np.ndarray | None:
        """(H, W) bool, or none where there is no instance map."""
        file = self._maps[row]
        if file is None or not file.is_file():
            return None
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        expected = tuple(int(v) for v in self.truth.sizes[row])
        if labels is None or labels.shape != expected:
            found = "no readable image" if labels is None else labels.shape
            raise ValueError(f"{file}: expected an instance map of {expected}, found {found}")
        return np.isin(labels, VOID)

    def read_results(self, folder: str | Path) -> Iterator[tuple[Any, Detections]]:
        """Official results, image by image: a text file whose name begins with the image's, with lines of mask file
        (relative to the text file; what is not 0 is the instance), label id, confidence.

        Raises DatasetError naming file and line, and where an image has no file or several.
        """
        import torch

        from ..models.structures import Detections

        labels = {category: label for label, category in enumerate(self.truth.category_ids)}
        for row, image_id in enumerate(self.truth.image_ids):
            files = sorted(Path(folder).rglob(f"{glob.escape(str(image_id))}*.txt"))
            if len(files) != 1:
                found = ", ".join(map(str, files)) or "none"
                raise DatasetError("not one results file", file=folder, where=f"image {image_id}", found=found)
            rows: list[tuple[float, float]] = []
            masks: list[np.ndarray] = []
            for number, line in enumerate(files[0].read_text().splitlines(), 1):
                mask, category, score = self._read_line(files[0], number, line, row)
                if category not in labels:
                    self._collected.leave_out(category)
                    continue
                rows.append((labels[category], score))
                masks.append(mask)
            table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)
            stacked = np.stack(masks) if masks else np.zeros((0, *self.truth.sizes[row]), bool)
            boxes = torch.from_numpy(mask_boxes(stacked)[0]).double()
            yield image_id, Detections(boxes, table[:, 1], table[:, 0].long(), torch.from_numpy(stacked))

    def _read_line(self, file: Path, number: int, line: str, row: int) -> tuple[np.ndarray, int, float]:
        """(H, W) bool mask, label id and confidence."""
        where = f"line {number}"
        try:
            name, category, score = line.split()
            numbers = int(category), float(score)
        except ValueError:
            expected = "mask file, label id, confidence"
            raise DatasetError("not an instance", file=file, where=where, found=line, expected=expected) from None
        mask = cv2.imread(str(file.parent / name), cv2.IMREAD_GRAYSCALE)
        expected = tuple(int(v) for v in self.truth.sizes[row])
        if mask is None or mask.shape != expected:
            found = "no readable image" if mask is None else mask.shape
            raise DatasetError(f"mask {name}", file=file, where=where, found=found, expected=f"an image of {expected}")
        return mask != 0, *numbers

    def matches(self, kind: str = "segm", iou: float = 0.5) -> Matches:
        """Who found whom at an IoU threshold."""
        return self._matches([iou])[0]

    def compared(self, kind: str = "segm", iou: float = FOREGROUND) -> Compared:
        """The table of matched detections at an IoU threshold."""
        matches = self.matches(iou=iou)
        pairs = self._collected.pairs
        pairs = self._with_iou(pairs[pairs.truth != _VOID_ROW], matches.found)
        pairs = pairs[pairs.iou >= BACKGROUND]
        return Compared.of(self.truth, matches, pairs, iou)

    @cached_property
    def _sizes(self) -> np.ndarray:
        """(G,) pixels of the instances."""
        truth = self.truth
        assert truth.segmentation is not None
        return mask_areas([truth.segmentation(i) for i in range(len(truth.labels))])

    def _with_iou(self, pairs: Pairs, found: Found) -> Pairs:
        """Pairs of instances, whose ``iou`` holds common pixels, with their IoU."""
        union = self._sizes[pairs.truth] + found.areas[pairs.detection] - pairs.iou
        return Pairs(pairs.detection, pairs.truth, pairs.iou / union)

    def _matches(self, thresholds: Sequence[float]) -> list[Matches]:
        truth, c = self.truth, self._collected
        found, sizes = c.found("segm"), self._sizes
        group = truth.ignore | truth.crowd
        small = sizes < self.protocol.smallest
        pairs = c.pairs  # Here ``iou`` holds common pixels.
        void = pairs.truth == _VOID_ROW
        same = ~void
        same[same] = found.labels[pairs.detection[same]] == truth.labels[pairs.truth[same]]
        excused = np.zeros(len(found))
        np.add.at(excused, pairs.detection[void], pairs.iou[void])
        pairs = pairs[same]
        # A small group counts twice, as in the official code.
        weight = group.astype(np.float64) + small
        np.add.at(excused, pairs.detection, pairs.iou * weight[pairs.truth])
        share = excused / np.maximum(found.areas, 1)
        pairs = self._with_iou(pairs, found)
        counts = ~(group | small)
        return [self._at(float(t), found, pairs, counts, share) for t in thresholds]

    @staticmethod
    def _at(threshold: float, found: Found, pairs: Pairs, counts: np.ndarray, share: np.ndarray) -> Matches:
        near = pairs[pairs.iou > threshold]
        on_object = near[counts[near.truth]]
        # Written in rising order of confidence, the most confident detection of an instance stays.
        rising = np.argsort(found.scores[on_object.detection], kind="stable")
        detection = np.full(len(counts), -1, np.int64)
        detection[on_object.truth[rising]] = on_object.detection[rising]
        held = np.flatnonzero(detection >= 0)
        truth = np.full(len(found), -1, np.int64)
        truth[detection[held]] = held
        false = np.zeros(len(found), bool)
        false[on_object.detection] = True
        touching = np.zeros(len(found), bool)
        touching[near.detection] = True
        false |= ~touching & (share <= threshold) & (found.areas > 0)
        false &= truth < 0
        overlap = np.zeros(len(found))
        own = truth[near.detection] == near.truth
        overlap[near.detection[own]] = near.iou[own]
        return Matches(found, truth, overlap, ~false & (truth < 0), detection, ~counts)

    def weighable(self, kind: str = "segm") -> Weighable:
        """The figures as functions of the images' weights."""
        truth, ious = self.truth, tuple(self.protocol.ious)
        by_iou = dict(zip(ious, self._matches(ious)))
        found = self._collected.found("segm")
        figures = {"AP": Figure(ious)} | ({"AP50": Figure((FOREGROUND,))} if FOREGROUND in ious else {})
        return weighable_matches(
            by_iou.__getitem__,  # type: ignore[arg-type]
            figures,
            truth.images,
            truth.labels,
            np.lexsort((-found.scores, found.labels)),
            "steps",
            classes=len(truth.classes),
            images=len(truth.image_ids),
            places=lambda scores: scores,
        )

    def compute(self) -> Report:
        """AP and AP50, by class."""
        truth = self.truth
        ious = self.protocol.ious
        all_matches = self._matches(ious)
        first = all_matches[0]
        positives = np.bincount(truth.labels[~first.truth_ignored], minlength=len(truth.classes))
        table = np.full((len(truth.classes), len(ious)), np.nan)
        for t, matches in enumerate(all_matches):
            for label in np.flatnonzero(positives):
                own = matches.found.labels == label
                table[label, t] = average_precision(
                    matches.found.scores[own & matches.true_positive],
                    matches.found.scores[own & matches.false_positive],
                    int((matches.missed & (truth.labels == label)).sum()),
                )
        reason = no_truth(kind=f"instance of {self.protocol.smallest} pixels")
        per_class = {}
        for label, name in enumerate(truth.classes):
            values = table[label]
            exists = positives[label] > 0
            per_class[name] = {"segm/AP": Value(float(values.mean())) if exists else Value(None, reason)}
            if FOREGROUND in ious:
                at = list(ious).index(FOREGROUND)
                per_class[name]["segm/AP50"] = Value(float(values[at])) if exists else Value(None, reason)
        add_best_thresholds(per_class, self.compared(), self.classes, "segm")
        known = positives > 0
        metrics = {"segm/AP": Value(float(table[known].mean())) if known.any() else Value(None, reason)}
        if FOREGROUND in ious:
            at = list(ious).index(FOREGROUND)
            metrics["segm/AP50"] = Value(float(table[known, at].mean())) if known.any() else Value(None, reason)
        return Report(
            protocol=str(self.protocol),
            metrics=metrics,
            counts=Counts(
                len(truth.image_ids), len(truth.labels), len(self._collected), int(first.truth_ignored.sum())
            ),
            per_class=per_class,
            notes=tuple(self._notes(first)),
            evaluator=self,
        )

    def _notes(self, first: Matches) -> list[str]:
        notes = self._collected.notes()
        unknown = sum(file is None or not file.is_file() for file in self._maps)
        if unknown:
            notes.append(
                f"{unknown} images have no {INSTANCES[1:]} beside them: void pixels are unknown there, "
                "and predictions on them count as false"
            )
        if not len(first.found):
            notes.append("there are no detections")
        elif (~first.truth_ignored).any() and not first.true_positive.any():
            notes.append("no prediction matched at IoU above 0.5")
        return notes
