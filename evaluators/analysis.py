"""Why a detector loses precision: errors by kind with what each costs, and which classes are taken for which.

Errors: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2:
foreground from IoU 0.5, background below 0.1. All of it is read from the evaluator's own matching.

Shape letters: D detections that the protocol looks at, G ground truths, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .matching import Matches, Pairs, best_pairs, interpolate, match, rank_in_groups

FOREGROUND, BACKGROUND = 0.5, 0.1
ERRORS = ("classification", "localization", "both", "duplicate", "background")
"""Kinds of false detections; ``missed`` is the kind of ground truths."""


@dataclass(frozen=True)
class ErrorBreakdown:
    """What goes wrong at IoU 0.5.

    ap: AP50. costs: by kind, what AP50 would gain were these errors alone set right (0..1, ``missed`` included).
    counts: how many there are. kind: (D,) place in ``ERRORS``, -1 for detections that are no error. truth: (D,) row of
    the ground truth that a classification, localization or duplicate error is about, -1 for none. missed: (G,) bool,
    not found, and nearly so by no error of another kind.
    """

    ap: float
    costs: dict[str, float]
    counts: dict[str, int]
    kind: np.ndarray
    truth: np.ndarray
    missed: np.ndarray


@dataclass(frozen=True)
class Compared:
    """Detections beside ground truths as a protocol sees them.

    matches: at IoU 0.5. pairs: overlaps of ``BACKGROUND`` and more between all classes. truth_labels: (G,). order: (D,)
    rows such that those of equal score stand as the protocol orders them.
    """

    matches: Matches
    pairs: Pairs
    truth_labels: np.ndarray
    order: np.ndarray


def error_breakdown(compared: Compared) -> ErrorBreakdown | None:
    """Sorts the false detections by kind and prices each kind; none where there is no ground truth.

    AP is read at 101 recalls, as COCO does, whatever the protocol's own figure.

    classification: overlaps an object of another class. localization: overlaps one of its class too little. both:
    overlaps one of another class too little. duplicate: overlaps one of its class that a better detection has.
    background: overlaps nothing. missed: objects in none of these.
    """
    matches, pairs, truth_labels = compared.matches, compared.pairs, compared.truth_labels
    found, counts_not = matches.found, matches.truth_ignored
    if counts_not.all():
        return None
    classes = int(max(truth_labels.max(), found.labels.max(initial=-1))) + 1
    positives = np.bincount(truth_labels[~counts_not], minlength=classes)
    pairs = pairs[~counts_not[pairs.truth]]
    same = found.labels[pairs.detection] == truth_labels[pairs.truth]
    held = matches.detection >= 0
    own, own_iou = best_pairs(pairs[same], len(found))
    other, other_iou = best_pairs(pairs[~same], len(found))
    taken, taken_iou = best_pairs(pairs[same & held[pairs.truth]], len(found))

    # The first description that fits, in TIDE's order.
    kinds = (
        ("localization", (own_iou >= BACKGROUND) & (own_iou <= FOREGROUND), own),
        ("classification", other_iou >= FOREGROUND, other),
        ("duplicate", taken_iou >= FOREGROUND, taken),
        ("background", np.maximum(own_iou, other_iou) <= BACKGROUND, np.full(len(found), -1)),
        ("both", np.ones(len(found), bool), np.full(len(found), -1)),
    )
    kind, truth = np.full(len(found), -1, np.int64), np.full(len(found), -1, np.int64)
    for name, fits, partner in kinds:
        new = matches.false_positive & fits & (kind < 0)
        kind[new], truth[new] = ERRORS.index(name), partner[new]

    # Errors about one free object compete to be set right: the most confident is, the others go.
    may_be_right = np.isin(kind, [ERRORS.index("classification"), ERRORS.index("localization")]) & ~held[truth]
    by_truth = np.lexsort((np.flatnonzero(may_be_right), -found.scores[may_be_right], truth[may_be_right]))
    competing = np.flatnonzero(may_be_right)[by_truth]
    first = rank_in_groups(np.arange(len(competing)), truth[competing]) == 0
    corrected = np.zeros(len(found), bool)
    corrected[competing[first]] = True
    missed = matches.missed.copy()
    missed[truth[competing]] = False

    # From here on in the order of scores, ties settled as in the official figure.
    order = compared.order[np.argsort(-found.scores[compared.order], kind="stable")]
    labels, scores, true, wrongs = (v[order] for v in (found.labels, found.scores, matches.true_positive, kind))
    counted, fixed, partner = ~matches.ignored[order], corrected[order], truth[order]
    ap = _mean_ap(labels[counted], scores[counted], true[counted], positives)
    costs, counts = {}, {}
    for number, name in enumerate(ERRORS):
        wrong = wrongs == number
        right = wrong & fixed
        keep = counted & (~wrong | right)
        new_labels = labels.copy()
        new_labels[right] = truth_labels[partner[right]]
        counts[name] = int(wrong.sum())
        costs[name] = _gain(_mean_ap(new_labels[keep], scores[keep], (true | right)[keep], positives), ap)
    fewer = positives - np.bincount(truth_labels[missed], minlength=len(positives))
    counts["missed"] = int(missed.sum())
    after = _mean_ap(labels[counted], scores[counted], true[counted], fewer)
    costs["missed"] = _gain(after, ap)
    return ErrorBreakdown(ap, costs, counts, kind, truth, missed)


def _gain(after: float, before: float) -> float:
    # Reading the curve at fixed recalls can make a correction look like a loss.
    return max(after - before, 0.0)


def _mean_ap(labels: np.ndarray, scores: np.ndarray, true: np.ndarray, positives: np.ndarray) -> float:
    """AP over 101 recalls, mean over the classes with ground truth, of detections in falling order of score; 1 where no
    class has any left to find."""
    order = np.argsort(labels, kind="stable")
    labels, scores, true = labels[order], scores[order], true[order]
    place = rank_in_groups(np.arange(len(labels)), labels) + 1
    tp = rank_in_groups(np.arange(int(true.sum())), labels[true]) + 1
    levels, _ = interpolate(labels[true], tp / place[true], scores[true], positives)
    present = positives > 0
    return float(levels[present].mean()) if present.any() else 1.0


@dataclass(frozen=True)
class ConfusionMatrix:
    """table: (K + 1, K + 1) counts, rows what is there, columns what was said; the last of both is background.

    iou: overlap that makes a pair. score: least score of a detection that counts.
    """

    classes: tuple[str, ...]
    table: np.ndarray
    iou: float
    score: float


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
    return ConfusionMatrix(tuple(classes), table, FOREGROUND, score)
