"""Matching of detections with ground truths, and the curves that follow: what all COCO-like protocols share.

The procedure is the official one (Lin et al., "Microsoft COCO", and its evaluation code): detections of one image and
class in order of score each take the free ground truth of highest IoU, real objects before ignored ones; precision is
made monotone and read at 101 recalls. It is written here for whole data sets at a time instead of one object at a time:

- only pairs that reach the lowest threshold can ever match, so IoU is kept as a sparse list of pairs;
- the first detections of all images and classes are matched together, then all second ones, and so on;
- only true positives carry information about a curve: precision is computed at them alone.

The numbers are those of pycocotools to the last bits, in about a seventieth of its time. A compiled package (hotcoco)
gives the summary figures as fast, but wants ground truth and detections as objects once more, holds all masks until the
end, and does not tell every object's partner, from which the error breakdown, the confusion matrix and the pictures are
made. There is one matching for all of them, and it is this one.

Shape letters: D detections, G ground truths, P pairs, C detections with at least one pair, A area ranges, T IoU
thresholds, K classes, S segments of a sorted list (class, or class within area and threshold), R recall levels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

# Written as the official code writes them: 0.05 steps by arange would differ in the last bit.
COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
COCO_AREAS = {"all": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}

_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Pairs:
    """Overlapping detections and ground truths: detection, truth (P,) rows, iou (P,) float64."""

    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray

    def __len__(self) -> int:
        return len(self.iou)

    def __getitem__(self, keep: np.ndarray) -> Pairs:
        return Pairs(self.detection[keep], self.truth[keep], self.iou[keep])


def concatenate_pairs(parts: list[Pairs]) -> Pairs:
    """One list out of several."""
    return Pairs(
        np.concatenate([p.detection for p in parts] or [np.zeros(0, np.int64)]),
        np.concatenate([p.truth for p in parts] or [np.zeros(0, np.int64)]),
        np.concatenate([p.iou for p in parts] or [np.zeros(0)]),
    )


def box_pairs(
    images: np.ndarray,
    boxes: np.ndarray,
    offsets: np.ndarray,
    truth_boxes: np.ndarray,
    crowd: np.ndarray,
    *,
    minimum: float,
    pixel: float = 0.0,
) -> Pairs:
    """Pairs of boxes in one image with IoU of at least ``minimum`` (> 0).

    images: (D,) image row. boxes: (D, 4) and truth_boxes: (G, 4) float64 x, y, width, height. offsets: (M + 1,) rows of
    ``truth_boxes`` by image. crowd: (G,) the union is then the detection alone. pixel: 1 where the protocol takes box
    ends as the last pixel inside (VOC, WIDER Face).
    """
    counts = np.diff(offsets)[images]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    splits = np.searchsorted(ends, np.arange(_PAIRS_AT_ONCE, total + _PAIRS_AT_ONCE, _PAIRS_AT_ONCE), side="left") + 1
    found, start = [], 0
    x2, y2 = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    truth_x2, truth_y2 = truth_boxes[:, 0] + truth_boxes[:, 2], truth_boxes[:, 1] + truth_boxes[:, 3]
    area = (boxes[:, 2] + pixel) * (boxes[:, 3] + pixel)
    truth_area = (truth_boxes[:, 2] + pixel) * (truth_boxes[:, 3] + pixel)
    for stop in np.minimum(splits, len(images)):
        if stop <= start:
            continue
        n = counts[start:stop]
        d = np.repeat(np.arange(start, stop), n)
        first = np.repeat(offsets[images[start:stop]] - (np.cumsum(n) - n), n)
        g = first + np.arange(len(d))
        width = np.minimum(x2[d], truth_x2[g]) - np.maximum(boxes[d, 0], truth_boxes[g, 0]) + pixel
        meets = np.flatnonzero(width > 0)
        d, g, width = d[meets], g[meets], width[meets]
        height = np.minimum(y2[d], truth_y2[g]) - np.maximum(boxes[d, 1], truth_boxes[g, 1]) + pixel
        meets = np.flatnonzero(height > 0)
        d, g = d[meets], g[meets]
        common = width[meets] * height[meets]
        iou = common / np.where(crowd[g], area[d], area[d] + truth_area[g] - common)
        meets = np.flatnonzero(iou >= minimum)
        found.append(Pairs(d[meets], g[meets], iou[meets]))
        start = stop
    return concatenate_pairs(found)


def best_pairs(pairs: Pairs, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(D,) row of the ground truth that each of ``count`` detections overlaps most, -1 for none; (D,) that IoU.

    Among equals it is the first ground truth.
    """
    # Written in rising order of IoU, the best pair of a detection stays.
    order = np.lexsort((-pairs.truth, pairs.iou))
    best, iou = np.full(count, -1, np.int64), np.zeros(count)
    best[pairs.detection[order]] = pairs.truth[order]
    iou[pairs.detection[order]] = pairs.iou[order]
    return best, iou


def rank_in_groups(order: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """(D,) place of each row among the rows with equal keys, counted along ``order``, which lists groups together."""
    n = len(order)
    if n == 0:
        return np.zeros(0, np.int64)
    new = np.zeros(n, bool)
    new[0] = True
    for key in keys:
        new[1:] |= np.diff(key[order]) != 0
    starts = np.flatnonzero(new)
    ranks = np.empty(n, np.int64)
    ranks[order] = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
    return ranks


@dataclass(frozen=True)
class Matched:
    """candidates: (C,) detections that had a pair. truth: (C, A, T) row of the ground truth taken, -1 for none."""

    candidates: np.ndarray
    truth: np.ndarray


def match(
    pairs: Pairs,
    *,
    images: np.ndarray,
    labels: np.ndarray,
    ranks: np.ndarray,
    ignore: np.ndarray,
    crowd: np.ndarray,
    thresholds: np.ndarray,
) -> Matched:
    """Gives every detection its ground truth, greedily by score, for every area range and IoU threshold.

    pairs: of equal image and class. images, labels: (D,). ranks: (D,) place by score within image and class.
    ignore: (A, G) objects that neither count as found nor as missed. crowd: (G,) may be taken many times.
    Equal IoU goes to the later ground truth, as in the official code.
    """
    thresholds = np.minimum(thresholds, 1 - 1e-10)
    pairs = pairs[np.flatnonzero(pairs.iou >= thresholds.min())]
    d = pairs.detection
    candidates, member = np.unique(d, return_inverse=True)
    order = np.lexsort((ranks[candidates], images[candidates], labels[candidates]))
    turn = rank_in_groups(order, images[candidates], labels[candidates])
    by_turn = np.lexsort((pairs.truth, pairs.iou, member, turn[member]))
    pairs, member = pairs[by_turn], member[by_turn]
    turns = turn[member]

    shape = (len(ignore), len(thresholds))
    taken = np.zeros((ignore.shape[1], *shape), bool)
    result = np.full((len(candidates), *shape), -1, np.int32)
    counts = np.bincount(turns) if len(turns) else np.zeros(0, np.int64)
    stop = 0
    for count in counts:
        start, stop = stop, stop + int(count)
        g, who = pairs.truth[start:stop], member[start:stop]
        fits = (~taken[g] | crowd[g, None, None]) & (pairs.iou[start:stop, None, None] >= thresholds)
        # The last fitting pair of a detection has its highest IoU; the offset puts real objects above ignored ones.
        place = np.arange(count, dtype=np.int32)[:, None] + np.where(ignore[:, g].T, 0, count).astype(np.int32)
        value = np.where(fits, place[:, :, None], -1)
        first = np.flatnonzero(np.diff(who, prepend=-1))
        best = np.maximum.reduceat(value, first, axis=0)
        c, a, t = np.nonzero(best >= 0)
        won = g[best[c, a, t] % count]
        taken[won, a, t] = True
        result[who[first][c], a, t] = won
    return Matched(candidates, result)


@dataclass(frozen=True)
class Curves:
    """precision, scores: (A, T, K, R) at the recall levels, 0 beyond the last recall reached. recall: (A, T, K).

    positives: (A, K) ground truths that count; where it is 0 there is no figure, whatever stands in the other arrays.
    """

    precision: np.ndarray
    scores: np.ndarray
    recall: np.ndarray
    positives: np.ndarray


def _needed(positives: np.ndarray) -> np.ndarray:
    """(S, R) how many true positives reach each recall level, decided by the same division as in the official code."""
    positives = positives[:, None].astype(np.float64)
    need = np.ceil(RECALL_LEVELS * positives)
    divisor = np.maximum(positives, 1)
    need = np.where((need - 1) / divisor >= RECALL_LEVELS, need - 1, need)
    need = np.where(need / divisor < RECALL_LEVELS, need + 1, need)
    return np.maximum(need, 1).astype(np.int64)


def interpolate(
    segments: np.ndarray, precision: np.ndarray, scores: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(S, R) monotone precision, and the score at which it is reached.

    segments: (n,) ascending segment of each true positive, best score first. precision, scores: (n,) at each of them.
    positives: (S,) ground truths of each segment.
    """
    count = np.bincount(segments, minlength=len(positives))
    starts = np.cumsum(count) - count
    # The best precision from here to the segment's end: ranks instead of values, so that segments can be told apart.
    values, rank = np.unique(precision, return_inverse=True)
    key = (len(positives) - 1 - segments) * (len(values) + 1) + rank
    envelope = values[np.maximum.accumulate(key[::-1])[::-1] % (len(values) + 1)] if len(values) else values
    need = _needed(positives)
    reached = need <= count[:, None]
    index = np.where(reached, starts[:, None] + need - 1, 0)
    if not len(values):
        return np.zeros(need.shape), np.zeros(need.shape)
    return np.where(reached, envelope[index], 0.0), np.where(reached, scores[index], 0.0)


def accumulate(
    matched: Matched,
    *,
    labels: np.ndarray,
    scores: np.ndarray,
    order: np.ndarray,
    ignore_unmatched: np.ndarray,
    ignore: np.ndarray,
    truth_labels: np.ndarray,
    num_classes: int,
) -> Curves:
    """Precision and recall by class, area range and threshold.

    labels, scores: (D,). order: (D,) by class, then falling score, ties settled. ignore_unmatched: (A, D) detections
    that do not count as false where nothing matches them (outside the area range, class not annotated exhaustively).
    ignore: (A, G).
    """
    areas, thresholds = matched.truth.shape[1:]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    class_starts = np.searchsorted(labels[order], np.arange(num_classes))

    by_place = np.argsort(place[matched.candidates])
    candidates = matched.candidates[by_place]
    truth = matched.truth[by_place]
    c, a, t = np.nonzero(truth >= 0)
    true = ~ignore[a, truth[c, a, t]]

    counted = ~ignore_unmatched  # (A, D)
    # How many detections count up to each place, were nothing matched; then what the matches change.
    base = np.zeros((areas, len(order) + 1), np.int32)
    np.cumsum(counted[:, order], axis=1, out=base[:, 1:])
    change = np.zeros((len(candidates) + 1, areas, thresholds), np.int32)
    change[c + 1, a, t] = true.astype(np.int32) - counted[a, candidates[c]]
    changes = np.cumsum(change, axis=0, dtype=np.int32)
    first_candidate = np.searchsorted(place[candidates], class_starts)

    c, a, t = c[true], a[true], t[true]
    k = labels[candidates[c]]
    total = (
        base[a, place[candidates[c]] + 1]
        - base[a, class_starts[k]]
        + changes[c + 1, a, t]
        - changes[first_candidate[k], a, t]
    )
    segments = (a * thresholds + t) * num_classes + k
    by_segment = np.lexsort((c, segments))
    segments = segments[by_segment]
    tp = rank_in_groups(np.arange(len(segments)), segments) + 1
    precision = tp / (total[by_segment] + np.spacing(1))

    positives = np.stack([np.bincount(truth_labels[~row], minlength=num_classes) for row in ignore])
    per_segment = np.repeat(positives[:, None], thresholds, axis=1)
    levels, at = interpolate(segments, precision, scores[candidates[c]][by_segment], per_segment.reshape(-1))
    shape = (areas, thresholds, num_classes)
    found = np.bincount(segments, minlength=per_segment.size).reshape(shape)
    return Curves(
        precision=levels.reshape(*shape, -1),
        scores=at.reshape(*shape, -1),
        recall=found / np.maximum(per_segment, 1),
        positives=positives,
    )


def outside(areas: np.ndarray, ranges: dict[str, tuple[float, float]] | None = None) -> np.ndarray:
    """(A, n) bool: area lies outside each range, ends included in the range."""
    bounds = np.array(list((ranges or COCO_AREAS).values()))
    return (areas < bounds[:, :1]) | (areas > bounds[:, 1:])


@dataclass(frozen=True)
class Found:
    """Detections to be scored, D rows: images (row of the image), index (place within its image as given), labels,
    scores, areas (pixels), boxes (D, 4) x, y, width, height."""

    images: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, keep: np.ndarray) -> Found:
        return Found(*(getattr(self, column.name)[keep] for column in fields(self)))


def keep_found(found: Found, pairs: Pairs, keep: np.ndarray) -> tuple[Found, Pairs]:
    """The kept (D,) bool detections, and their pairs renumbered."""
    row = np.where(keep, np.cumsum(keep) - 1, -1)
    pairs = pairs[keep[pairs.detection]]
    return found[keep], Pairs(row[pairs.detection], pairs.truth, pairs.iou)


@dataclass(frozen=True)
class Sought:
    """Ground truths to be found, G rows: images, labels, ignore (A, G), crowd (G,)."""

    images: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class Matches:
    """Who found whom at one IoU threshold, over all sizes.

    found: the detections that the protocol looks at, D rows. truth: (D,) row of the ground truth found, -1 for none.
    iou: (D,) with it. ignored: (D,) bool, neither true nor false. detection: (G,) row of the detection that found each
    ground truth (the best one, for a crowd), -1 for none. truth_ignored: (G,) bool.
    """

    found: Found
    truth: np.ndarray
    iou: np.ndarray
    ignored: np.ndarray
    detection: np.ndarray
    truth_ignored: np.ndarray

    @property
    def true_positive(self) -> np.ndarray:
        """(D,) bool."""
        return (self.truth >= 0) & ~self.ignored

    @property
    def false_positive(self) -> np.ndarray:
        """(D,) bool."""
        return (self.truth < 0) & ~self.ignored

    @property
    def missed(self) -> np.ndarray:
        """(G,) bool: counts and was not found."""
        return (self.detection < 0) & ~self.truth_ignored


@dataclass(frozen=True)
class Scored:
    """One matching and all that follows from it.

    ranks: (D,) place by score within image and class. order: (D,) rows by class, then falling score.
    pairs: overlaps between all classes, for the breakdown of errors. Area range 0 is all sizes.
    """

    found: Found
    sought: Sought
    pairs: Pairs
    ranks: np.ndarray
    order: np.ndarray
    ignore_unmatched: np.ndarray
    thresholds: np.ndarray
    matched: Matched
    curves: Curves
    num_classes: int

    def recall_at(self, most: int) -> np.ndarray:
        """(A, T, K) recall of the ``most`` best detections of each image and class."""
        truth = self.matched.truth
        areas, thresholds = truth.shape[1:]
        early = self.ranks[self.matched.candidates] < most
        c, a, t = np.nonzero((truth >= 0) & early[:, None, None])
        counts = ~self.sought.ignore[a, truth[c, a, t]]
        c, a, t = c[counts], a[counts], t[counts]
        labels = self.found.labels[self.matched.candidates[c]]
        segments = (a * thresholds + t) * self.num_classes + labels
        shape = (areas, thresholds, self.num_classes)
        found = np.bincount(segments, minlength=int(np.prod(shape))).reshape(shape)
        return found / np.maximum(self.curves.positives, 1)[:, None]

    def threshold_index(self, iou: float) -> int:
        """Place of an IoU threshold. Raises ValueError where the protocol does not have it."""
        near = np.flatnonzero(np.isclose(self.thresholds, iou))
        if not len(near):
            raise ValueError(f"IoU {iou}: matched at {', '.join(f'{t:.2f}' for t in self.thresholds)} only")
        return int(near[0])

    def matches(self, iou: float = 0.5) -> Matches:
        """Who found whom at an IoU threshold of the protocol."""
        t = self.threshold_index(iou)
        truth = np.full(len(self.found), -1, np.int64)
        truth[self.matched.candidates] = self.matched.truth[:, 0, t]
        hit = truth >= 0
        ignored = self.ignore_unmatched[0].copy()
        ignored[hit] = self.sought.ignore[0, truth[hit]]
        overlap = np.zeros(len(self.found))
        own = truth[self.pairs.detection] == self.pairs.truth
        overlap[self.pairs.detection[own]] = self.pairs.iou[own]
        detection = np.full(len(self.sought.labels), -1, np.int64)
        worst_first = np.flatnonzero(hit)[np.argsort(self.found.scores[hit], kind="stable")]
        detection[truth[worst_first]] = worst_first
        return Matches(self.found, truth, overlap, ignored, detection, self.sought.ignore[0])


def score(
    found: Found,
    sought: Sought,
    pairs: Pairs,
    *,
    image_rank: np.ndarray,
    most: int,
    ignore_unmatched: np.ndarray,
    thresholds: np.ndarray,
    num_classes: int,
) -> Scored:
    """Matches and accumulates.

    found: an image's detections in the order given. pairs: overlaps within images, between all classes.
    image_rank: (M,) order of images, which settles equal scores.
    most: detections of one image and class that count. ignore_unmatched: (A, D).
    """
    # One whole number a detection sorts faster than several columns; equal scores keep the order as given.
    levels, level = np.unique(-found.scores, return_inverse=True)
    group = found.labels.astype(np.int64) * len(image_rank) + image_rank[found.images]
    by_group = np.argsort(group * len(levels) + level, kind="stable")
    ranks = rank_in_groups(by_group, group)
    by_class = by_group[np.argsort((found.labels.astype(np.int64) * len(levels) + level)[by_group], kind="stable")]
    keep = ranks < most
    order = (np.cumsum(keep) - 1)[by_class[keep[by_class]]]
    found, pairs = keep_found(found, pairs, keep)
    ranks, ignore_unmatched = ranks[keep], ignore_unmatched[:, keep]
    same = found.labels[pairs.detection] == sought.labels[pairs.truth]
    matched = match(
        pairs[same],
        images=found.images,
        labels=found.labels,
        ranks=ranks,
        ignore=sought.ignore,
        crowd=sought.crowd,
        thresholds=thresholds,
    )
    curves = accumulate(
        matched,
        labels=found.labels,
        scores=found.scores,
        order=order,
        ignore_unmatched=ignore_unmatched,
        ignore=sought.ignore,
        truth_labels=sought.labels,
        num_classes=num_classes,
    )
    return Scored(found, sought, pairs, ranks, order, ignore_unmatched, thresholds, matched, curves, num_classes)
