"""Why a detector loses precision: errors by kind with what each costs, and which classes are taken for which.

Errors: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2:
foreground from IoU 0.5, background below 0.1. All of it is read from the evaluator's own matching.

Shape letters: D detections that the protocol looks at, G ground truths, P pairs, M images, K classes, C corrections:
detections that would be right were their class or their box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .ground_truth import GroundTruth
from .matching import COCO_AREAS, RECALL_LEVELS, Matches, Pairs, best_pairs, box_pairs, match, rank_in_groups

FOREGROUND, BACKGROUND = 0.5, 0.1
ERRORS = ("classification", "localization", "both", "duplicate", "background")
"""Kinds of false detections; ``missed`` is the kind of ground truths."""
SPECIAL = ("false positives", "false negatives")
"""What all false detections, and all objects not found, cost."""
# TIDE reads the curve at x / 100, which differs from the official levels in the last bit.
_LEVELS = np.arange(101) / 100


@dataclass(frozen=True)
class Compared:
    """Detections beside ground truths as a protocol sees them: the table that error kinds, comparison, review and the
    marks in FiftyOne all read.

    matches: at the IoU threshold ``iou``. pairs: overlaps of ``BACKGROUND`` and more between all classes.
    truth_labels, truth_images: (G,). truth_boxes: (G, 4) x, y, width, height. truth_areas: (G,) pixels. image_sizes:
    (M, 2) height, width, 0 where unknown. image_rank: (M,) order of images, which settles equal scores.
    """

    matches: Matches
    pairs: Pairs
    truth_labels: np.ndarray
    truth_images: np.ndarray
    truth_boxes: np.ndarray
    truth_areas: np.ndarray
    image_sizes: np.ndarray
    image_rank: np.ndarray
    iou: float = FOREGROUND

    @classmethod
    def of(cls, truth: GroundTruth, matches: Matches, pairs: Pairs, iou: float) -> Compared:
        """With all annotations of a dataset as the ground truths."""
        columns = (truth.labels, truth.images, truth.boxes, truth.areas, truth.sizes, truth.image_rank)
        return cls(matches, pairs, *columns, iou)

    @cached_property
    def classes(self) -> int:
        """K, as far as labels show it."""
        return int(max(self.truth_labels.max(initial=-1), self.matches.found.labels.max(initial=-1))) + 1

    @cached_property
    def positives(self) -> np.ndarray:
        """(K,) ground truths that count."""
        return np.bincount(self.truth_labels[~self.matches.truth_ignored], minlength=self.classes)

    @cached_property
    def ranking(self) -> np.ndarray:
        """(D,) rows by falling score; equal ones by image, then as given."""
        found = self.matches.found
        return np.lexsort((found.index, self.image_rank[found.images], -found.scores))


@dataclass(frozen=True)
class ErrorBreakdown:
    """What goes wrong at one IoU threshold.

    iou: the threshold. ap: AP at it, mean over the classes that have ground truth. costs: by kind, what AP would gain
    were these errors alone set right (0..1, ``missed`` included). special: what ``false positives`` and ``false
    negatives`` cost in all. counts: how many there are. by_class: by kind, (K,) what the AP of each class would gain.
    kind: (D,) place in ``ERRORS``, -1 for detections that are no error. truth: (D,) row of the ground truth that a
    classification, localization or duplicate error is about, -1 for none. missed: (G,) bool, not found, and nearly so
    by no error of another kind.
    """

    iou: float
    ap: float
    costs: dict[str, float]
    special: dict[str, float]
    counts: dict[str, int]
    by_class: dict[str, np.ndarray]
    kind: np.ndarray
    truth: np.ndarray
    missed: np.ndarray
    repairs: Repairs = field(repr=False, compare=False)


@dataclass(frozen=True)
class Repairs:
    """AP after some errors are set right, for any choice of them.

    labels, true, rows: (D + C,) all detections and their corrections by class and falling score, false ones first
    among equal scores; row D + c stands for correction c. corrected: (C,) the detections that corrections are of.
    before: (K,) AP with nothing repaired. present: (K,) classes with ground truth.
    """

    compared: Compared
    labels: np.ndarray
    true: np.ndarray
    rows: np.ndarray
    corrected: np.ndarray
    before: np.ndarray
    present: np.ndarray

    @classmethod
    def of(cls, compared: Compared, truth: np.ndarray, corrected: np.ndarray) -> Repairs:
        """truth: (D,) row of the ground truth that an error is about. corrected: (C,)."""
        found = compared.matches.found
        place = np.empty(len(found), np.int64)
        place[compared.ranking] = np.arange(len(found))
        true = compared.matches.true_positive
        labels = np.concatenate([found.labels, compared.truth_labels[truth[corrected]]])
        scores, places = (np.concatenate([values, values[corrected]]) for values in (found.scores, place))
        # tidecv lists errors, corrected or not, before what was right: equal scores stand in that order.
        rows = np.lexsort((places, np.concatenate([true, np.zeros(len(corrected), bool)]), -scores, labels))
        all_true = np.concatenate([true, np.ones(len(corrected), bool)])
        before = _plain_aps(compared, _LEVELS)
        return cls(compared, labels[rows], all_true[rows], rows, corrected, before, compared.positives > 0)

    def after(self, wrong: np.ndarray | None = None, fewer: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(K,) AP of each class, and whether anything of it is left.

        wrong: (D,) bool errors to set right: those with a correction become it, the others go. fewer: (K,) ground
        truths that are no longer sought.
        """
        keep = np.concatenate([~self.compared.matches.ignored, np.zeros(len(self.corrected), bool)])
        if wrong is not None:
            keep[: len(wrong)] &= ~wrong
            keep[len(wrong) :] = wrong[self.corrected]
        kept = keep[self.rows]
        positives = self.compared.positives - (0 if fewer is None else fewer)
        return class_aps(self.labels[kept], self.true[kept], positives)

    def gain(self, aps: np.ndarray, left: np.ndarray) -> float:
        """What the mean over classes gains; a class of which nothing is left drops out, as in tidecv."""
        left = left & self.present
        after = float(aps[left].mean()) if left.any() else 1.0
        return after - float(self.before[self.present].mean())

    def cost(self, wrong: np.ndarray | None = None, missed: np.ndarray | None = None) -> float:
        """What setting right some errors (D,) and leaving out some missed objects (G,) gains; never negative: reading a
        curve at fixed recalls can make a correction look like a loss."""
        fewer = None if missed is None else self._count(missed)
        return max(self.gain(*self.after(wrong, fewer)), 0.0)

    def _count(self, objects: np.ndarray) -> np.ndarray:
        return np.bincount(self.compared.truth_labels[objects], minlength=self.compared.classes)

    def class_gains(self, wrong: np.ndarray | None = None, missed: np.ndarray | None = None) -> np.ndarray:
        """(K,) what the AP of each class gains; all that is missing where nothing of a class is left."""
        aps, left = self.after(wrong, None if missed is None else self._count(missed))
        return np.maximum(np.where(left, aps, 1.0) - self.before, 0.0) * self.present


def class_aps(
    labels: np.ndarray, true: np.ndarray, positives: np.ndarray, recalls: np.ndarray = _LEVELS
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) AP over 101 recalls, and (K,) whether the class has ground truth or detections.

    labels, true: (n,) of detections by class and falling score. positives: (K,) ground truths. recalls: rising levels.
    """
    starts = np.searchsorted(labels, np.arange(len(positives)))
    rows = np.flatnonzero(true)
    own = labels[rows]
    number = np.arange(len(rows)) - np.searchsorted(own, np.arange(len(positives)))[own] + 1
    precision = number / (rows - starts[own] + 1)
    # Classes are told apart by whole numbers: the best precision from here to the end of the class.
    envelope = np.maximum.accumulate((precision - 2.0 * own)[::-1])[::-1] + 2.0 * own
    reached = np.searchsorted(recalls, number / np.maximum(positives[own], 1), side="right")
    levels = np.where(number == 1, reached, np.diff(reached, prepend=0))
    aps = np.bincount(own, envelope * levels, len(positives)) / len(recalls)
    return aps, (positives > 0) | (np.bincount(labels, minlength=len(positives)) > 0)


def _plain_aps(compared: Compared, recalls: np.ndarray) -> np.ndarray:
    """(K,) AP of each class as it is."""
    rows = compared.ranking[~compared.matches.ignored[compared.ranking]]
    labels = compared.matches.found.labels
    rows = rows[np.argsort(labels[rows], kind="stable")]
    return class_aps(labels[rows], compared.matches.true_positive[rows], compared.positives, recalls)[0]


def error_breakdown(compared: Compared) -> ErrorBreakdown | None:
    """Sorts the false detections by kind and prices each kind; none where there is no ground truth.

    AP is read at 101 recalls, as COCO does, whatever the protocol's own figure. The costs are those of tidecv 1.0.1,
    averaged over the classes that have ground truth (tidecv also averages over those that have none).

    classification: overlaps an object of another class. localization: overlaps one of its class too little. both:
    overlaps one of another class too little. duplicate: overlaps one of its class that a better detection has.
    background: overlaps nothing. missed: objects in none of these.
    """
    matches, pairs, truth_labels = compared.matches, compared.pairs, compared.truth_labels
    found, counts_not = matches.found, matches.truth_ignored
    if counts_not.all():
        return None
    pairs = pairs[~counts_not[pairs.truth]]
    same = found.labels[pairs.detection] == truth_labels[pairs.truth]
    held = matches.detection >= 0
    own, own_iou = best_pairs(pairs[same], len(found))
    other, other_iou = best_pairs(pairs[~same], len(found))
    taken, taken_iou = best_pairs(pairs[same & held[pairs.truth]], len(found))

    # The first description that fits, in TIDE's order.
    fits = (
        ("localization", (own_iou >= BACKGROUND) & (own_iou <= compared.iou), own),
        ("classification", other_iou >= compared.iou, other),
        ("duplicate", taken_iou >= compared.iou, taken),
        ("background", np.maximum(own_iou, other_iou) <= BACKGROUND, np.full(len(found), -1)),
        ("both", np.ones(len(found), bool), np.full(len(found), -1)),
    )
    kind, truth = np.full(len(found), -1, np.int64), np.full(len(found), -1, np.int64)
    # What is ignored where it is may still be right elsewhere, and so has a kind until the end.
    wrong = ~matches.true_positive
    for name, fit, partner in fits:
        new = wrong & fit & (kind < 0)
        kind[new], truth[new] = ERRORS.index(name), partner[new]

    # Errors about one free object compete to be set right: the most confident is, the others go.
    may_be_right = np.isin(kind, [ERRORS.index("classification"), ERRORS.index("localization")]) & ~held[truth]
    competing = compared.ranking[may_be_right[compared.ranking]]
    competing = competing[np.argsort(truth[competing], kind="stable")]
    corrected = competing[rank_in_groups(np.arange(len(competing)), truth[competing]) == 0]
    missed = matches.missed.copy()
    missed[truth[competing]] = False

    repairs = Repairs.of(compared, truth, corrected)
    costs, counts, by_class = {}, {}, {}
    for number, name in enumerate(ERRORS):
        costs[name] = repairs.cost(kind == number)
        by_class[name] = repairs.class_gains(kind == number)
        counts[name] = int((matches.false_positive & (kind == number)).sum())
    costs["missed"], by_class["missed"] = repairs.cost(missed=missed), repairs.class_gains(missed=missed)
    counts["missed"] = int(missed.sum())
    special: dict[str, float] = dict(zip(SPECIAL, _special_costs(repairs)))
    false = matches.false_positive
    ap = float(_plain_aps(compared, RECALL_LEVELS)[repairs.present].mean())
    kind, truth = np.where(false, kind, -1), np.where(false, truth, -1)
    return ErrorBreakdown(compared.iou, ap, costs, special, counts, by_class, kind, truth, missed, repairs)


def _special_costs(repairs: Repairs) -> tuple[float, float]:
    """What all false detections cost (were each scored below all others), and all objects not found."""
    compared = repairs.compared
    found = compared.positives - np.bincount(compared.truth_labels[compared.matches.missed], minlength=compared.classes)
    reached = np.searchsorted(_LEVELS, found / np.maximum(compared.positives, 1), side="right") / len(_LEVELS)
    precise = np.where(found > 0, reached, 0.0)
    complete = repairs.after(fewer=compared.positives - found)
    return repairs.gain(precise, repairs.present), repairs.gain(*complete)


def average_costs(breakdowns: Sequence[ErrorBreakdown]) -> dict[str, float]:
    """Mean cost of each kind over breakdowns at several IoU thresholds."""
    names = (*breakdowns[0].costs, *SPECIAL)
    return {name: float(np.mean([{**one.costs, **one.special}[name] for one in breakdowns])) for name in names}


GROUPINGS = {
    "size": ("small", "medium", "large"),
    "crowding": ("alone", "near another", "overlapped"),
    "border": ("inside", "at the border"),
    "aspect ratio": ("tall", "square", "wide"),
}
"""What objects and errors are grouped by.

size: area as COCO has it, below 32 x 32, below 96 x 96 pixels, above. crowding: highest IoU with another object, below
0.1, below 0.5, above. border: touches the image's border, to a pixel. aspect ratio: width to height, up to 0.75, up to
1.33, above (as in TIDE).
"""


def _shapes(boxes: np.ndarray, areas: np.ndarray, sizes: np.ndarray, overlap: np.ndarray) -> dict[str, np.ndarray]:
    """Grouping to (n,) place in ``GROUPINGS``. boxes: (n, 4) x, y, width, height. sizes: (n, 2) of their images."""
    bounds = [COCO_AREAS["s"][1], COCO_AREAS["m"][1]]
    ends = boxes[:, :2] + boxes[:, 2:]
    known = (sizes > 0).all(1)
    touches = (boxes[:, :2] <= 1).any(1) | (known & (ends >= sizes[:, ::-1] - 1).any(1))
    ratio = boxes[:, 2] / np.maximum(boxes[:, 3], np.finfo(np.float64).tiny)
    return {
        "size": np.searchsorted(bounds, areas, side="left"),
        "crowding": np.searchsorted([BACKGROUND, FOREGROUND], overlap, side="right"),
        "border": np.asarray(touches, np.int64),
        "aspect ratio": np.searchsorted([0.75, 1.33], ratio, side="left"),
    }


def groups_of(compared: Compared, truth: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Grouping to (D,) places of detections and (G,) of ground truths in ``GROUPINGS``.

    truth: (D,) row of the ground truth that a detection is about; such a detection is grouped as its ground truth is.
    """
    found = compared.matches.found
    crowd = np.zeros(len(compared.truth_labels), bool)
    by_image = np.argsort(compared.truth_images, kind="stable")
    boxes, images = compared.truth_boxes[by_image], compared.truth_images[by_image]
    offsets = np.searchsorted(images, np.arange(len(compared.image_sizes) + 1))
    pairs = box_pairs(images, boxes, offsets, boxes, crowd, minimum=BACKGROUND)
    _, overlap = best_pairs(pairs[pairs.detection != pairs.truth], len(boxes))
    objects = _shapes(boxes, compared.truth_areas[by_image], compared.image_sizes[images], overlap)
    _, near = best_pairs(compared.pairs, len(found))
    own = _shapes(found.boxes, found.areas, compared.image_sizes[found.images], near)
    groups = {}
    for name, places in objects.items():
        given = np.empty(len(places), np.int64)
        given[by_image] = places
        groups[name] = (np.where(truth >= 0, given[truth] if len(given) else -1, own[name]), given)
    return groups


def group_costs(breakdown: ErrorBreakdown) -> dict[str, dict[str, dict[str, float]]]:
    """Grouping, group and kind to what the errors of this kind in this group cost; beside them ``objects``, the ground
    truths of the group that count, and ``recall``, the share of them that was found (absent without any)."""
    repairs = breakdown.repairs
    matches = repairs.compared.matches
    table: dict[str, dict[str, dict[str, float]]] = {}
    for grouping, (detections, truths) in groups_of(repairs.compared, breakdown.truth).items():
        table[grouping] = {}
        for place, name in enumerate(GROUPINGS[grouping]):
            row = {
                kind: repairs.cost((breakdown.kind == number) & (detections == place))
                for number, kind in enumerate(ERRORS)
            }
            row["missed"] = repairs.cost(missed=breakdown.missed & (truths == place))
            sought = ~matches.truth_ignored & (truths == place)
            row["objects"] = int(sought.sum())
            if sought.any():
                row["recall"] = float((matches.detection[sought] >= 0).mean())
            table[grouping][name] = row
    return table


@dataclass(frozen=True)
class ConfusionMatrix:
    """table: (K + 1, K + 1) counts, rows what is there, columns what was said; the last of both is background.

    iou: overlap that makes a pair. score: least score of a detection that counts. said: (n,) rows of the detections
    that count. there: (n,) row of the ground truth that each was paired with, -1 for background. unseen: rows of the
    ground truths of which nothing was said.
    """

    classes: tuple[str, ...]
    table: np.ndarray
    iou: float
    score: float
    said: np.ndarray = field(repr=False)
    there: np.ndarray = field(repr=False)
    unseen: np.ndarray = field(repr=False)


def confusion_matrix(compared: Compared, classes: Sequence[str], *, score: float = 0.3) -> ConfusionMatrix:
    """Pairs detections and ground truths at IoU 0.5 whatever their classes, greedily by score.

    Ignored ground truths and the detections on them are left out, and so are detections that the protocol does not
    count. score: detections below do not count.
    """
    matches, labels = compared.matches, compared.truth_labels
    found, ignored = matches.found, matches.truth_ignored
    sure = found.scores >= score
    matched = match(
        compared.pairs[sure[compared.pairs.detection]],
        images=found.images,
        labels=np.zeros(len(found), np.int64),
        ranks=rank_in_groups(np.lexsort((-found.scores, found.images)), found.images),
        ignore=ignored[None],
        crowd=ignored,
        thresholds=np.array([FOREGROUND]),
    )
    truth = np.full(len(found), -1, np.int64)
    truth[matched.candidates] = matched.truth[:, 0, 0]
    hit = truth >= 0
    excused = matches.ignored & ~hit
    excused[hit] = ignored[truth[hit]]
    background = len(classes)
    said = np.where(sure & ~excused)[0]
    there = np.full(len(found), background)
    there[hit] = labels[truth[hit]]
    table = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(table, (there[said], found.labels[said]), 1)
    alone = ~ignored
    alone[truth[hit]] = False
    np.add.at(table, (labels[alone], np.full(int(alone.sum()), background)), 1)
    return ConfusionMatrix(tuple(classes), table, FOREGROUND, score, said, truth[said], np.flatnonzero(alone))
