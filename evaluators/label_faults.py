"""Annotations that are probably wrong, by what a detector is sure of where it disagrees with them.

Every annotation is explained in one of five ways, and each way is given a weight that grows with the evidence for it:

* right: detections of its class lie on it, as exactly as they usually do;
* class: the detections on it are of another class. Scores are divided by what the detector usually gives to objects
  of that class, after the thresholds of confident learning (Northcutt et al., "Confident Learning: Estimating
  Uncertainty in Dataset Labels", 2021, section 3.1), since a detector that is shy of one class is not thereby in doubt
  of its labels;
* box: the detection that belongs to it lies further off than detections of that class usually do, edge by edge;
* spurious: no detection lies on it, though the detector finds most objects of that class and size, or its size is none
  that the class has;
* duplicate: another annotation lies on the same place, and the detector sees one object there.

A detection that belongs to no annotation is a missing one, as probable as those like it usually belong to one.
All of "usually" is measured on the same data, robustly, since few annotations are wrong.

Shape letters: D detections, G annotations, K classes, P pairs of the two within images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

KINDS = ("class", "box", "spurious", "missing", "duplicate")
LEAST_OVERLAP = 0.1
"""Detections that meet an annotation less do not speak of it."""
SAME_PLACE = 0.5
MET_BESIDE = 0.2
"""Annotations that a detection meets less are of something else beside it."""
SAME_OBJECT = 0.6
"""Annotations of one class that meet this much are one object, unless the detector sees two."""
ALTERNATIVE = 0.2
"""A way in which an annotation may be wrong is told where it is at least so likely as the likeliest way."""
MOST_CONFIDENT = 1.2
"""Scores above the usual one of their class by more than this factor say no more."""
SUSPICION = 0.3
"""Odds of an invented object for one that was not seen, where the detector finds none of its like."""
FAR = 0.3
"""Boxes that meet this much and less are not of one object."""
LEAST_ERROR = 0.01
"""Standard deviation of an edge, as a share of the side, that annotators cannot go below."""
SHRINKAGE = 10
"""Objects of a class that weigh as much as all classes together where its usual values are estimated."""


@dataclass(frozen=True)
class Objects:
    """Boxes of many images: images (N,) row of the image, boxes (N, 4) float64 xyxy pixels, labels (N,) in 0..K-1,
    scores (N,) 0..1 of detections, ones for annotations. ignore: (N,) bool, annotations that are not judged."""

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ignore: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, keep: np.ndarray) -> Objects:
        return Objects(self.images[keep], self.boxes[keep], self.labels[keep], self.scores[keep], self.ignore[keep])


@dataclass(frozen=True)
class LabelFaults:
    """What is probably wrong, G annotations and D detections.

    probability: (5, G) that each annotation is wrong in each way of ``KINDS``, 0..1; that of ``missing`` is 0.
    label: (G,) the likeliest other class. detection: (G,) row of the detection that belongs to it, -1 for
    none. duplicate_of: (G,) row of the annotation that it repeats, -1 for none. missing: (D,) probability that the
    detection is an object that nobody annotated, 0 where an annotation explains it.
    """

    probability: np.ndarray
    label: np.ndarray
    detection: np.ndarray
    duplicate_of: np.ndarray
    missing: np.ndarray

    def of_kind(self, kind: str, least: float = 0.0) -> np.ndarray:
        """Rows of the annotations that are wrong in this way with a probability above ``least``, unless another way is
        far likelier (``ALTERNATIVE``)."""
        own = self.probability[KINDS.index(kind)]
        return np.flatnonzero((own > least) & (own >= ALTERNATIVE * self.probability.max(0)))


def label_faults(truth: Objects, found: Objects, num_classes: int) -> LabelFaults:
    """Judges every annotation that is not ignored by the detections of the same images.

    truth: annotations, sorted by image. found: detections, in any order, best without a score threshold.
    """
    if not len(found):  # A detector that finds nothing says nothing of the annotations.
        none = np.full(len(truth), -1)
        return LabelFaults(np.zeros((len(KINDS), len(truth))), truth.labels, none, none, np.zeros(0))
    pairs = _pairs(truth, found)
    partner, partner_iou = _partners(truth, found, pairs)
    usual = _Usual.of(truth, found, partner, partner_iou, num_classes)
    own, other, other_label, seen = _evidence(truth, found, pairs, usual, num_classes)
    duplicate_of, repeats = _duplicates(truth, found, pairs, partner)

    belongs = partner >= 0
    sure = np.where(belongs, found.scores[partner], 0.0)
    off = np.zeros(len(truth))
    off[belongs] = usual.unusual(truth.boxes[belongs], found.boxes[partner[belongs]], truth.labels[belongs])

    # Only the class is wrong: the box lies on what is detected as exactly as boxes usually do, and as surely.
    exact = np.clip((partner_iou - FAR) / (usual.overlap[truth.labels] - FAR), 0, 1)
    seen_class = np.where(belongs, found.labels[partner], 0)
    confident = np.minimum(sure / usual.confidence[seen_class], MOST_CONFIDENT) / MOST_CONFIDENT
    weights = {
        "class": other * (1 - own) * confident * exact,
        "box": off * sure * np.maximum(own, 1 - other),
        "spurious": _unlikely(truth, usual) * (1 - seen) ** 2,
        "duplicate": repeats,
    }
    # A repeated annotation has no detection of its own, and looks like a badly drawn or invented one.
    weights["box"] = weights["box"] * (1 - repeats)
    weights["spurious"] = weights["spurious"] * (1 - repeats)
    table = np.stack([weights.get(kind, np.zeros(len(truth))) for kind in KINDS])
    return LabelFaults(
        probability=np.where(truth.ignore, 0.0, np.clip(table, 0, 1)),
        label=other_label,
        detection=partner,
        duplicate_of=duplicate_of,
        missing=_missing(truth, found, pairs, partner, usual),
    )


@dataclass(frozen=True)
class _Pairs:
    """Annotations and detections that meet: rows of both, and their IoU, (P,) each."""

    truth: np.ndarray
    found: np.ndarray
    iou: np.ndarray


def _pairs(truth: Objects, found: Objects, least: float = LEAST_OVERLAP) -> _Pairs:
    by_image = np.argsort(found.images, kind="stable")
    starts = np.searchsorted(found.images[by_image], truth.images)
    counts = np.searchsorted(found.images[by_image], truth.images, side="right") - starts
    t = np.repeat(np.arange(len(truth)), counts)
    d = by_image[np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts, counts)]
    iou = overlaps(truth.boxes[t], found.boxes[d])
    near = iou >= least
    return _Pairs(t[near], d[near], iou[near])


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) IoU of boxes (N, 4) xyxy, row by row."""
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    inter = sides.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inter
    return inter / np.maximum(union, 1e-9)


def _partners(truth: Objects, found: Objects, pairs: _Pairs) -> tuple[np.ndarray, np.ndarray]:
    """(G,) row of the detection that belongs to each annotation whatever the classes, -1 for none, and their IoU.

    One to one, the best product of score and overlap first; a detection of the same class comes before another.
    """
    same = truth.labels[pairs.truth] == found.labels[pairs.found]
    # Boxes that hardly meet belong together only when nothing else claims them.
    weight = pairs.iou**2 * found.scores[pairs.found] * np.where(same, 1.0, 0.7)
    partner, partner_iou = np.full(len(truth), -1), np.zeros(len(truth))
    taken = np.zeros(len(found), bool)
    for p in np.argsort(-weight, kind="stable"):
        t, d = pairs.truth[p], pairs.found[p]
        if partner[t] < 0 and not taken[d]:
            partner[t], partner_iou[t], taken[d] = d, pairs.iou[p], True
    return partner, partner_iou


@dataclass(frozen=True)
class _Usual:
    """What the detector usually does, by class.

    confidence: (K,) score of objects that it finds. center, spread: (K, 4) of edge residuals, as shares of the side.
    overlap: (K,) IoU with them that three quarters reach. recall: (G,) how often objects of the class and size of each
    annotation are found, whatever they are taken for. size: (K,) median area in pixels; sizes: (K,) its deviation, in
    logarithms. same: (G,) bool, annotations that a detection of their class lies on.
    """

    confidence: np.ndarray
    center: np.ndarray
    spread: np.ndarray
    overlap: np.ndarray
    recall: np.ndarray
    size: np.ndarray
    sizes: np.ndarray
    same: np.ndarray

    @staticmethod
    def of(truth: Objects, found: Objects, partner: np.ndarray, iou: np.ndarray, num_classes: int) -> _Usual:
        belongs = partner >= 0
        on = belongs & (iou >= SAME_PLACE) & ~truth.ignore
        same = on & (truth.labels == np.where(belongs, found.labels[partner], -1))
        scores = np.where(belongs, found.scores[partner], 0.0)
        all_scores = float(np.median(scores[same])) if same.any() else 0.5
        residuals = _residuals(truth.boxes, found.boxes[partner]) if len(found) else np.zeros((len(truth), 4))
        all_center, all_spread = _robust(residuals[same])
        confidence, center, spread = np.zeros(num_classes), np.zeros((num_classes, 4)), np.zeros((num_classes, 4))
        size, sizes, overlap = np.ones(num_classes), np.ones(num_classes), np.zeros(num_classes)
        all_overlap = float(np.quantile(iou[same], 0.25)) if same.any() else 1.0
        areas = np.log(np.maximum(_areas(truth.boxes), 1))
        for k in range(num_classes):
            mine = same & (truth.labels == k)
            share = mine.sum() / (mine.sum() + SHRINKAGE)
            confidence[k] = share * (np.mean(scores[mine]) if mine.any() else 0) + (1 - share) * all_scores
            own_center, own_spread = _robust(residuals[mine])
            center[k] = share * own_center + (1 - share) * all_center
            spread[k] = share * own_spread + (1 - share) * all_spread
            overlap[k] = share * (np.quantile(iou[mine], 0.25) if mine.any() else 0) + (1 - share) * all_overlap
            there = (truth.labels == k) & ~truth.ignore
            size[k] = np.exp(np.median(areas[there])) if there.any() else 1
            # A class of few objects says little of how their sizes vary; 0.8 is a factor of about two.
            some = there.sum() / (there.sum() + SHRINKAGE)
            deviation = 1.4826 * np.median(np.abs(areas[there] - np.log(size[k]))) if there.any() else 0
            sizes[k] = max(some * deviation + (1 - some) * 0.8, 0.2)
        middle = areas.mean() if len(areas) else 0.0
        columns = [areas - middle, np.ones(len(truth)), *np.eye(num_classes)[truth.labels].T]
        recall = _logistic(np.column_stack(columns), on.astype(float))
        return _Usual(np.maximum(confidence, 1e-3), center, spread, overlap, recall, size, sizes, same)

    def unusual(self, boxes: np.ndarray, found: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(N,) 0..1, how far off the boxes lie, 0.5 where edges are 3.5 usual deviations away on average."""
        z = (_residuals(boxes, found) - self.center[labels]) / self.spread[labels]
        # The mean square over the edges, each limited: one long edge that the picture cuts off is no fault of a box.
        distance = np.sqrt(np.mean(np.minimum(np.abs(z), 12) ** 2, axis=1))
        return 1 / (1 + np.exp(-1.5 * (distance - 3.5)))


def _unlikely(truth: Objects, usual: _Usual) -> np.ndarray:
    """(G,) how probably an annotation is invented were it not seen: a real object of its class and size would have
    been found, or it is of no size that its class has (by a Cauchy distribution of log areas, whose tails are long)."""
    away = np.log(np.maximum(_areas(truth.boxes), 1) / usual.size[truth.labels]) / usual.sizes[truth.labels]
    odds = SUSPICION * (1 + away**2 / 3) / (1.02 - usual.recall)
    return odds / (1 + odds)


def _residuals(boxes: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(N, 4) how far each edge of a box lies from that of the detection, in sides of the detection."""
    sides = np.maximum(found[:, 2:] - found[:, :2], 1)
    return (boxes - found) / np.concatenate([sides, sides], 1)


def _robust(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and the standard deviation that the median deviation from it implies, (4,) each."""
    if not len(residuals):
        return np.zeros(4), np.full(4, 0.1)
    center = np.median(residuals, 0)
    return center, np.maximum(1.4826 * np.median(np.abs(residuals - center), 0), LEAST_ERROR)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def _logistic(columns: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N,) chance of being right by logistic regression with a weak ridge. columns: (N, C). right: (N,) 0 or 1."""
    weights = np.zeros(columns.shape[1])
    for _ in range(30):  # Newton's steps; a few are enough for so few columns.
        chance = expit(columns @ weights)
        curvature = (columns * (chance * (1 - chance))[:, None]).T @ columns + np.eye(len(weights))
        step = np.linalg.solve(curvature, columns.T @ (right - chance) - weights)
        weights += step
        if np.abs(step).max() < 1e-6:
            break
    return expit(columns @ weights)


def _evidence(
    truth: Objects, found: Objects, pairs: _Pairs, usual: _Usual, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the detections on each annotation say, (G,) each: share of its own class, share of the best other class,
    that class, and how surely anything is there at all, 0..1."""
    # Weight falls where boxes meet by half: a neighbour in a crowd says nothing of this object.
    near = np.clip((pairs.iou - FAR) / 0.4, 0, 1)
    worth = near * np.minimum(found.scores[pairs.found] / usual.confidence[found.labels[pairs.found]], 1.5)
    table = np.zeros((len(truth), num_classes))
    np.maximum.at(table, (pairs.truth, found.labels[pairs.found]), worth)
    rows = np.arange(len(truth))
    own = table[rows, truth.labels].copy()
    table[rows, truth.labels] = 0
    other_label = table.argmax(1) if num_classes > 1 else truth.labels
    other = table[rows, other_label] if num_classes > 1 else np.zeros(len(truth))
    seen = np.zeros(len(truth))
    # Something less exact is still something: here overlap counts from its beginning.
    any_near = np.clip((pairs.iou - LEAST_OVERLAP) / 0.4, 0, 1)
    np.maximum.at(seen, pairs.truth, any_near * np.minimum(worth / np.maximum(near, 1e-9), 1) * (near > 0))
    total = own + other + 0.1
    return own / total, other / total, other_label, seen


def _duplicates(truth: Objects, found: Objects, pairs: _Pairs, partner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G,) row of the annotation that each repeats, -1 for none, and how surely, 0..1.

    Of two that lie on each other, the one that fits the detections worse is said to repeat; of equal ones the later.
    """
    twins = _pairs(truth, truth, SAME_OBJECT)
    twins = _Pairs(*(v[twins.truth < twins.found] for v in (twins.truth, twins.found, twins.iou)))
    fit = np.zeros(len(truth))
    np.maximum.at(fit, pairs.truth, pairs.iou * found.scores[pairs.found])
    of, surely = np.full(len(truth), -1), np.zeros(len(truth))
    for p in np.argsort(-twins.iou, kind="stable"):
        a, b = twins.truth[p], twins.found[p]
        worse, better = (a, b) if fit[a] < fit[b] else (b, a)
        if of[worse] >= 0 or of[better] >= 0:
            continue
        two = partner[a] >= 0 and partner[b] >= 0
        # Two detections on two annotations speak for two objects, as far as the weaker one is sure.
        apart = min(found.scores[partner[a]], found.scores[partner[b]]) if two else 0.0
        same = 1.0 if truth.labels[a] == truth.labels[b] else 0.8
        of[worse] = better
        surely[worse] = same * twins.iou[p] ** 0.5 * (1 - apart * (1 - twins.iou[p]))
    return of, surely


def _missing(truth: Objects, found: Objects, pairs: _Pairs, partner: np.ndarray, usual: _Usual) -> np.ndarray:
    """(D,) how surely a detection is an object without annotation: the chance that one like it belongs to an
    annotation of its class, by its score, its class, its size beside that of the class, and whether a surer one meets
    it. A score alone says less: parts and groups of objects are detected as surely as objects are."""
    claimed = np.zeros(len(found), bool)
    claimed[partner[partner >= 0]] = True
    right = np.zeros(len(found))
    right[partner[usual.same]] = 1
    scores = np.clip(found.scores, 1e-4, 1 - 1e-4)
    larger = np.log(np.maximum(_areas(found.boxes), 1) / np.maximum(usual.size[found.labels], 1))
    among = _pairs(found, found)
    surer = found.scores[among.found] > found.scores[among.truth]
    beside = np.zeros(len(found))
    np.maximum.at(beside, among.truth[surer], among.iou[surer])
    columns = [np.log(scores / (1 - scores)), np.maximum(larger, 0), np.maximum(-larger, 0), beside]
    probability = _logistic(np.column_stack([*columns, np.eye(len(usual.size))[found.labels]]), right)
    met = np.zeros(len(found))
    np.maximum.at(met, pairs.found, pairs.iou)
    probability *= np.clip((SAME_PLACE - met) / (SAME_PLACE - MET_BESIDE), 0, 1)
    probability[claimed] = 0
    # Detections are often repeated: of those that meet each other the best alone is an object.
    repeated = surer & (among.iou >= SAME_PLACE) & (probability[among.found] > 0)
    probability[among.truth[repeated]] = 0
    return probability


LEAST_OBJECTS = 4
"""Annotations that an image needs before one movement of all of them is believed."""
LEAST_GAIN = 0.15
"""What the movement must add to their mean overlap with detections of their class."""


def swapped_classes(truth: Objects, found: Objects, num_classes: int) -> list[tuple[int, int, float]]:
    """Pairs of labels that stand for each other: most objects annotated as either are detected as the other.

    Gives both labels and the share of their objects of which that is true.
    """
    partner, iou = _partners(truth, found, _pairs(truth, found))
    on = (partner >= 0) & (iou >= SAME_PLACE) & ~truth.ignore
    table = np.zeros((num_classes, num_classes))
    np.add.at(table, (truth.labels[on], found.labels[partner[on]]), found.scores[partner[on]])
    shares = table / np.maximum(table.sum(1, keepdims=True), 1e-9)
    counts = np.bincount(truth.labels[on], minlength=num_classes)
    return [
        (a, b, float(min(shares[a, b], shares[b, a])))
        for a in range(num_classes)
        for b in range(a + 1, num_classes)
        if min(counts[a], counts[b]) >= 3 and min(shares[a, b], shares[b, a]) > 0.5
    ]


@dataclass(frozen=True)
class Movement:
    """All boxes of an image lie elsewhere: ``x * scale + shift`` brings them to their objects, (x, y) each.

    before, after: mean overlap of the image's annotations with detections of their class.
    """

    image: int
    scale: tuple[float, float]
    shift: tuple[float, float]
    before: float
    after: float


def moved_images(truth: Objects, found: Objects) -> list[Movement]:
    """Images whose annotations all meet their objects after one shift, or one change of scale about the origin."""
    moved = []
    for image in np.unique(truth.images):
        there = truth[(truth.images == image) & ~truth.ignore]
        said = found[found.images == image]
        said = said[np.argsort(-said.scores, kind="stable")[: 2 * len(there)]]
        if len(there) < LEAST_OBJECTS or len(said) < LEAST_OBJECTS:
            continue
        same = there.labels[:, None] == said.labels[None]
        before = _met(there.boxes[None], said.boxes, same)[0]
        if before.mean() > 1 - LEAST_GAIN:
            continue
        scales, shifts = _movements(there.boxes, said.boxes, same)
        if not len(scales):
            continue
        tried = there.boxes[None] * np.tile(scales, 2)[:, None] + np.tile(shifts, 2)[:, None]
        met = _met(tried, said.boxes, same)
        best = int(met.mean(1).argmax())
        hits, hits_before = (met[best] >= SAME_PLACE).sum(), (before >= SAME_PLACE).sum()
        gain = met[best].mean() - before.mean()
        if gain >= LEAST_GAIN and hits >= max(LEAST_OBJECTS, 0.6 * len(there), 1.5 * hits_before):
            (sx, sy), (tx, ty) = scales[best].tolist(), shifts[best].tolist()
            moved.append(Movement(int(image), (sx, sy), (tx, ty), float(before.mean()), float(met[best].mean())))
    return moved


def _met(boxes: np.ndarray, found: np.ndarray, same: np.ndarray) -> np.ndarray:
    """(C, N) best IoU of each of N boxes under C movements, (C, N, 4), with a detection, (D, 4), of its class."""
    low = np.maximum(boxes[:, :, None, :2], found[:, :2])
    inter = np.clip(np.minimum(boxes[:, :, None, 2:], found[:, 2:]) - low, 0, None).prod(-1)
    areas = np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(-1)
    union = areas[:, :, None] + _areas(found) - inter
    return np.where(same, inter / np.maximum(union, 1e-9), 0).max(-1, initial=0)


def _movements(boxes: np.ndarray, found: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, 2) scales and (C, 2) shifts that bring some annotation onto a detection of its class, each of which either
    shifts or scales."""
    a, d = np.nonzero(same)
    if len(a) > 400:
        few = np.linspace(0, len(a) - 1, 400).astype(int)
        a, d = a[few], d[few]
    sides, found_sides = boxes[a, 2:] - boxes[a, :2], found[d, 2:] - found[d, :2]
    ratio = found_sides / np.maximum(sides, 1e-9)
    centers, found_centers = boxes[a, :2] + boxes[a, 2:], found[d, :2] + found[d, 2:]
    like = (np.abs(np.log(np.maximum(ratio, 1e-9))) < 0.3).all(1)
    by_center = found_centers / np.maximum(centers, 1e-9)
    scaled = (np.abs(by_center / np.maximum(ratio, 1e-9) - 1) < 0.2).all(1) & ~like
    scales = np.concatenate([np.ones((like.sum(), 2)), by_center[scaled]])
    shifts = np.concatenate([(found_centers - centers)[like] / 2, np.zeros((scaled.sum(), 2))])
    return scales, shifts
