"""What scores are worth: where to cut them, how often they are right, and what is found at how many false alarms.

Everything is read from the table of matched detections; detections that the protocol ignores are left out.

Shape letters: D detections that the protocol looks at, N cuts, K classes, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .analysis import Compared

FALSE_ALARMS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False detections an image at which sensitivity is read, those of the LUNA16 challenge."""
BINS = 15


@dataclass(frozen=True)
class Cuts:
    """Every score at which the detections of a class can be cut: equal scores stand or fall together.

    labels, scores: (N,) by class and falling score. true, count: (N,) true and all detections of at least that score.
    overlap: (N,) sum of the IoU of the true ones. positives: (K,) ground truths.
    """

    labels: np.ndarray
    scores: np.ndarray
    true: np.ndarray
    count: np.ndarray
    overlap: np.ndarray
    positives: np.ndarray

    def best(self, worth: np.ndarray) -> np.ndarray:
        """The first of the best cuts of every class that has cuts, by rising class. worth: (N,)."""
        order = np.lexsort((-np.arange(len(worth)), worth, self.labels))
        return order[np.flatnonzero(np.diff(self.labels[order], append=-1))]


def cuts_of(compared: Compared, by_class: bool = True) -> Cuts:
    """The cuts of every class that has detections; without ``by_class`` all are one class."""
    matches = compared.matches
    found, order = matches.found, compared.ranking[~matches.ignored[compared.ranking]]
    positives = compared.positives if by_class else compared.positives.sum(keepdims=True)
    labels = found.labels if by_class else np.zeros(len(found), np.int64)
    order = order[np.argsort(labels[order], kind="stable")]
    labels, scores, true = labels[order], found.scores[order], matches.true_positive[order]
    starts = np.searchsorted(labels, np.arange(len(positives) + 1))

    def total(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
        return sums[1:] - sums[starts[labels]]

    last = np.ones(len(order), bool)
    last[:-1] = (np.diff(scores) != 0) | (np.diff(labels) != 0)
    count = np.arange(1, len(order) + 1) - starts[labels]
    overlap = total(np.where(true, matches.iou[order], 0.0))
    columns = (labels, scores, total(true.astype(np.int64)), count, overlap)
    return Cuts(*(values[last] for values in columns), positives=positives)


def best_thresholds(compared: Compared) -> dict[int, tuple[float, float]]:
    """Class to (score threshold, F1): keeping the detections of at least that score gives the best F1, the harmonic
    mean of precision and recall at the table's IoU threshold. Only classes with a true positive are in it."""
    cuts = cuts_of(compared)
    f1 = 2 * cuts.true / np.maximum(cuts.count + cuts.positives[cuts.labels], 1)
    return {int(cuts.labels[i]): (float(cuts.scores[i]), float(f1[i])) for i in cuts.best(f1) if cuts.true[i]}


def best_cut(compared: Compared) -> float:
    """The score at which F1 of all classes together is highest; infinite without detections."""
    cuts = cuts_of(compared, by_class=False)
    f1 = 2 * cuts.true / np.maximum(cuts.count + cuts.positives[cuts.labels], 1)
    return float(cuts.scores[f1.argmax()]) if len(f1) else np.inf


def counts_by_image(compared: Compared) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M,) true and false detections of each image at the best cut of all classes together, and objects not found."""
    matches, images = compared.matches, len(compared.image_sizes)
    kept = matches.found.scores >= best_cut(compared)
    true, false = kept & matches.true_positive, kept & matches.false_positive
    counts = [np.bincount(matches.found.images[rows], minlength=images) for rows in (true, false)]
    sought = np.bincount(compared.truth_images[~matches.truth_ignored], minlength=images)
    return counts[0], counts[1], sought - counts[0]


def f1_of(true: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """(M,) harmonic mean of precision and recall; 1 where nothing is there and nothing is said."""
    return np.where(true + false + missed == 0, 1.0, 2 * true / np.maximum(2 * true + false + missed, 1))


@dataclass(frozen=True)
class LRP:
    """Localization Recall Precision at the best score (Oksuz et al., "Localization Recall Precision (LRP): A New
    Performance Metric for Object Detection", ECCV 2018, and TPAMI 2021, equations 3 to 7); lower is better.

    lrp: 0..1. localization: mean 1 - IoU of the true detections, none without any. false_positive: 1 - precision.
    false_negative: 1 - recall. threshold: the score at which lrp is lowest, none where keeping nothing is best.
    """

    lrp: float
    localization: float | None
    false_positive: float
    false_negative: float
    threshold: float | None


def optimal_lrp(compared: Compared) -> dict[int, LRP]:
    """Class to optimal LRP, for every class that has ground truth; true from the table's IoU threshold on."""
    cuts = cuts_of(compared)
    positives = cuts.positives[cuts.labels]
    away = (cuts.true - cuts.overlap) / (1 - compared.iou)
    lrp = (away + cuts.count + positives - 2 * cuts.true) / np.maximum(cuts.count + positives - cuts.true, 1)
    table = {int(label): LRP(1.0, None, 0.0, 1.0, None) for label in np.flatnonzero(cuts.positives)}
    for i in cuts.best(-lrp):
        true, label = int(cuts.true[i]), int(cuts.labels[i])
        if true and lrp[i] < 1:
            table[label] = LRP(
                float(lrp[i]),
                float(1 - cuts.overlap[i] / true),
                float(1 - true / cuts.count[i]),
                float(1 - true / positives[i]),
                float(cuts.scores[i]),
            )
    return table


@dataclass(frozen=True)
class Calibration:
    """Whether a score is the share of detections of that score that are true.

    edges: (B + 1,) of the bins, the upper end belongs to a bin. counts: (B,) detections. confidence, accuracy: (B,)
    mean score and share of true ones, 0 in empty bins: together the reliability curve. ece: expected calibration error,
    the mean distance of both weighted by counts (Guo et al., "On Calibration of Modern Neural Networks", equation 3).
    worst: the largest distance.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float
    worst: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def calibration(compared: Compared, label: int | None = None, bins: int = BINS) -> Calibration | None:
    """Calibration of all detections, or of those of one class; none without any, or with scores outside 0..1, which
    are no probabilities."""
    matches = compared.matches
    keep = ~matches.ignored & (True if label is None else matches.found.labels == label)
    scores, true = matches.found.scores[keep], matches.true_positive[keep]
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return None
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    confidence = np.bincount(place, scores, bins) / np.maximum(counts, 1)
    accuracy = np.bincount(place, true, bins) / np.maximum(counts, 1)
    distance = np.abs(confidence - accuracy)
    return Calibration(
        edges, counts, confidence, accuracy, float(distance @ counts / len(scores)), float(distance.max())
    )


def froc(compared: Compared, by_class: bool = False) -> np.ndarray:
    """(7,) or (K, 7) sensitivity: share of the objects that are found where at most so many detections an image are
    false (``FALSE_ALARMS``). Without ``by_class`` all classes are cut at one score. NaN where there are no objects."""
    cuts = cuts_of(compared, by_class)
    most = np.array(FALSE_ALARMS) * len(compared.image_sizes)
    false = cuts.count - cuts.true
    classes = np.arange(len(cuts.positives))
    # Classes are told apart by a step above any count, so that one search serves them all.
    step = max(float(most[-1]), float(false.max(initial=0))) + 1
    at = np.searchsorted(cuts.labels * step + false, classes[:, None] * step + most, side="right") - 1
    own = (at >= 0) & (cuts.labels[at] == classes[:, None]) if len(false) else np.zeros(at.shape, bool)
    found = np.where(own, cuts.true[at] if len(false) else 0, 0)
    with np.errstate(invalid="ignore"):
        sensitivity = found / np.where(cuts.positives > 0, cuts.positives, np.nan)[:, None]
    return sensitivity if by_class else sensitivity[0]


def precision_at(compared: Compared, recall: float) -> dict[int, tuple[float, float]]:
    """Class to (precision, score threshold): the best precision at which at least this share of the objects is found.

    Only classes that reach it are in it. Raises ValueError for a recall outside 0..1.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall: expected above 0 and up to 1, found {recall}")
    cuts = cuts_of(compared)
    reaches = cuts.true / np.maximum(cuts.positives[cuts.labels], 1) >= recall
    precision = np.where(reaches, cuts.true / cuts.count, -1.0)
    best = cuts.best(precision)
    return {int(cuts.labels[i]): (float(precision[i]), float(cuts.scores[i])) for i in best if reaches[i]}
