"""Annotations that are probably wrong, by what a detector is sure of where it disagrees with them.

Every annotation is explained in one of five ways, and each way is given a weight that grows with the evidence for it:

* right: detections of its class lie on it, as exactly as they usually do;
* class: the detections on it are of another class. Scores are divided by what the detector usually gives to objects
  of that class, after the thresholds of confident learning (Northcutt et al., "Confident Learning: Estimating
  Uncertainty in Dataset Labels", 2021, section 3.1), since a detector that is shy of one class is not thereby in doubt
  of its labels;
* box: the detection that belongs to it lies further off than detections of that class usually do, edge by edge;
* spurious: no detection lies on it, though the detector finds most objects of that class and size;
* duplicate: another annotation lies on the same place, and the detector sees one object there.

A sure detection that belongs to no annotation is a missing one, as probable as its score is usually right.
All of "usually" is measured on the same data, robustly, since few annotations are wrong.

Shape letters: D detections, G annotations, K classes, P pairs of the two within images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("class", "box", "spurious", "missing", "duplicate")
LEAST_OVERLAP = 0.1
"""Detections that meet an annotation less do not speak of it."""
SAME_PLACE = 0.5
SAME_OBJECT = 0.6
"""Annotations of one class that meet this much are one object, unless the detector sees two."""
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

    kind: (G,) the likeliest of ``KINDS`` for each annotation. probability: (G,) that it is wrong in this way, 0..1.
    label: (G,) class that the detector sees there. detection: (G,) row of the detection that belongs to it, -1 for
    none. duplicate_of: (G,) row of the annotation that it repeats, -1 for none. missing: (D,) probability that the
    detection is an object that nobody annotated, 0 where an annotation explains it.
    """

    kind: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    detection: np.ndarray
    duplicate_of: np.ndarray
    missing: np.ndarray


def label_faults(truth: Objects, found: Objects, num_classes: int) -> LabelFaults:
    """Judges every annotation that is not ignored by the detections of the same images.

    truth: annotations, sorted by image. found: detections, in any order, best without a score threshold.
    """
    if not len(found):  # A detector that finds nothing says nothing of the annotations.
        nothing, none = np.zeros(len(truth)), np.full(len(truth), -1)
        return LabelFaults(np.full(len(truth), KINDS[0]), nothing, truth.labels, none, none, np.zeros(0))
    pairs = _pairs(truth, found)
    partner, partner_iou = _partners(truth, found, pairs)
    usual = _Usual.of(truth, found, partner, partner_iou, num_classes)
    own, other, other_label, seen = _evidence(truth, found, pairs, usual, num_classes)
    duplicate_of, repeats = _duplicates(truth, found, pairs, partner)

    belongs = partner >= 0
    sure = np.where(belongs, found.scores[partner], 0.0)
    off = np.zeros(len(truth))
    off[belongs] = usual.unusual(truth.boxes[belongs], found.boxes[partner[belongs]], truth.labels[belongs])

    weights = {
        "class": other * (1 - own) * sure,
        "box": off * sure * np.maximum(own, 1 - other),
        "spurious": usual.recall(truth) * (1 - seen) ** 2,
        "duplicate": repeats,
    }
    # A repeated annotation has no detection of its own, and looks like a badly drawn or invented one.
    weights["box"] = weights["box"] * (1 - repeats)
    weights["spurious"] = weights["spurious"] * (1 - repeats)
    table = np.stack([weights.get(kind, np.zeros(len(truth))) for kind in KINDS])
    best = table.argmax(0)
    probability = np.where(truth.ignore, 0.0, table.max(0, initial=0.0))
    return LabelFaults(
        kind=np.array(KINDS)[best],
        probability=np.clip(probability, 0, 1),
        label=np.where(other > own, other_label, truth.labels),
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
    levels, right: scores and how often detections of that score belong to an annotation, by class.
    found: (2, K) rates at which small and large objects of the class are found; size: (K,) what parts them.
    """

    confidence: np.ndarray
    center: np.ndarray
    spread: np.ndarray
    levels: list[np.ndarray]
    right: list[np.ndarray]
    found: np.ndarray
    size: np.ndarray

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
        levels, right, rates, size = [], [], np.zeros((2, num_classes)), np.zeros(num_classes)
        is_right = np.zeros(len(found), bool)
        is_right[partner[same]] = True
        all_right = _calibrated(found.scores, is_right)
        areas = _areas(truth.boxes)
        all_rate = (same.sum() + 1) / ((~truth.ignore).sum() + 2)
        for k in range(num_classes):
            mine = same & (truth.labels == k)
            share = mine.sum() / (mine.sum() + SHRINKAGE)
            confidence[k] = share * (np.mean(scores[mine]) if mine.any() else 0) + (1 - share) * all_scores
            own_center, own_spread = _robust(residuals[mine])
            center[k] = share * own_center + (1 - share) * all_center
            spread[k] = share * own_spread + (1 - share) * all_spread
            said = found.labels == k
            order, values = _calibrated(found.scores[said], is_right[said])
            own = said.sum() / (said.sum() + 10 * SHRINKAGE)
            levels.append(order)
            right.append(own * values + (1 - own) * np.interp(order, *all_right))
            there = (truth.labels == k) & ~truth.ignore
            size[k] = np.median(areas[there]) if there.any() else 0
            for large in (0, 1):
                part = there & ((areas > size[k]) == bool(large))
                rates[large, k] = ((part & on).sum() + SHRINKAGE / 2 * all_rate) / (part.sum() + SHRINKAGE / 2)
        return _Usual(np.maximum(confidence, 1e-3), center, spread, levels, right, np.minimum(rates, 1), size)

    def precision(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(N,) how often a detection of this score and class belongs to an annotation of its class."""
        values = np.zeros(len(scores))
        for k in np.unique(labels):
            mine = labels == k
            values[mine] = np.interp(scores[mine], self.levels[k], self.right[k])
        return values

    def unusual(self, boxes: np.ndarray, found: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(N,) 0..1, how far off the boxes lie, 0.5 where edges are 3.5 usual deviations away on average."""
        z = (_residuals(boxes, found) - self.center[labels]) / self.spread[labels]
        # The mean square over the edges, each limited: one long edge that the picture cuts off is no fault of a box.
        distance = np.sqrt(np.mean(np.minimum(np.abs(z), 12) ** 2, axis=1))
        return 1 / (1 + np.exp(-1.5 * (distance - 3.5)))

    def recall(self, truth: Objects) -> np.ndarray:
        """(G,) how often objects of this class and size are found."""
        return self.found[(_areas(truth.boxes) > self.size[truth.labels]).astype(int), truth.labels]


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


def _calibrated(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rising scores and the probability of being right at each, rising too: isotonic regression (pool adjacent
    violators), held off 0 and 1 by one imagined detection of either kind at each end."""
    order = np.argsort(scores, kind="stable")
    levels = np.concatenate([[0.0], scores[order], [1.0]])
    means, counts = [], []
    for value in np.concatenate([[0.0], right[order].astype(float), [1.0]]):
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            total = counts[-2] + counts[-1]
            means[-2:] = [(means[-2] * counts[-2] + means[-1] * counts[-1]) / total]
            counts[-2:] = [total]
    return levels, np.repeat(means, counts)


def _evidence(
    truth: Objects, found: Objects, pairs: _Pairs, usual: _Usual, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the detections on each annotation say, (G,) each: share of its own class, share of the best other class,
    that class, and how surely anything is there at all, 0..1."""
    # Weight falls where boxes meet by half: a neighbour in a crowd says nothing of this object.
    near = np.clip((pairs.iou - 0.3) / 0.4, 0, 1)
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
    """(D,) how surely a detection is an object without annotation."""
    claimed = np.zeros(len(found), bool)
    claimed[partner[partner >= 0]] = True
    met = np.zeros(len(found))
    np.maximum.at(met, pairs.found, pairs.iou)
    # Detections are often repeated: of those that meet each other the best alone is an object.
    probability = usual.precision(found.scores, found.labels) * np.clip(1 - met / SAME_PLACE, 0, 1)
    probability[claimed] = 0
    rest = np.flatnonzero(probability > 0)
    among = _pairs(found[rest], found[rest], SAME_PLACE)
    order = found.scores[rest]
    beaten = among.found[(order[among.truth] > order[among.found])]
    probability[rest[beaten]] = 0
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
