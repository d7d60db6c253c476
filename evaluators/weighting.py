"""Figures of a protocol over weighted images: slices (weights 0 and 1) and resamples (how often an image was drawn).

The matching is done once. A weighted figure is what the protocol would say of a data set that holds each image as often
as its weight; only equal scores of different images may fall in another order there.

Shape letters: E entries (places of curves), M images, K classes, B weightings at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from scipy.sparse import csr_array

from .matching import RECALL_LEVELS, Matches, Scored

Reading = Literal["levels", "11point", "area", "steps"]
"""How a curve becomes a number: precision at 101 recalls (COCO, LVIS), at 11 (VOC 2007), area under the monotone curve
(VOC 2010, WIDER FACE), area under the raw curve in steps half as wide as the way to both neighbours (Cityscapes)."""
_ELEVEN = np.arange(0.0, 1.1, 0.1)
AT_ONCE = 32
"""Weightings at a time; memory does not grow beyond theirs."""


@dataclass(frozen=True)
class Cell:
    """One curve of every class, or how much of it was found, at one threshold and size.

    classes: (E,) rising class of each entry, best score first within. true, counted: (E, M) detections of each image
    that come to the true and to all detections at this entry. positives: (K, M) ground truths. reading: how the curve
    is read; ``recall`` takes the last recall.
    """

    classes: np.ndarray
    true: csr_array
    counted: csr_array | None
    positives: csr_array
    reading: Reading | Literal["recall"]

    def values(self, weights: np.ndarray) -> np.ndarray:
        """(K, B) figure of each class; NaN where it has no ground truth. weights: (M, B)."""
        positives = self.positives @ weights
        values = np.zeros_like(positives)
        if len(self.classes):
            starts = np.flatnonzero(np.diff(self.classes, prepend=-1))
            values[self.classes[starts]] = self._read(weights, starts, positives)
        values[positives == 0] = np.nan
        return values

    def _read(self, weights: np.ndarray, starts: np.ndarray, positives: np.ndarray) -> np.ndarray:
        """(starts, B) figure of the classes that have entries."""
        true = self.true @ weights
        sought = np.maximum(positives[self.classes[starts]], np.finfo(np.float64).tiny)
        if self.reading == "recall":
            return np.add.reduceat(true, starts, axis=0) / sought
        assert self.counted is not None
        lengths = np.diff(np.append(starts, len(self.classes)))
        segment = np.repeat(np.arange(len(starts)), lengths)

        def running(values: np.ndarray) -> np.ndarray:
            sums = np.cumsum(values, axis=0)
            before = np.zeros((len(starts), sums.shape[1]))
            before[1:] = sums[starts[1:] - 1]
            sums -= before[segment]
            return sums

        found, count = running(true), running(self.counted @ weights)
        precision = found / np.maximum(count, 1)
        recall = found / sought[segment]
        if self.reading == "steps":
            return self._steps(np.where(count > 0, precision, 1.0), recall, starts)
        # Segments are told apart by whole numbers: the best precision from here to the end of each.
        apart = 2.0 * segment[:, None]
        precision -= apart
        np.maximum.accumulate(precision[::-1], axis=0, out=precision[::-1])
        precision += apart
        if self.reading == "area":
            return np.add.reduceat(precision * true, starts, axis=0) / sought
        if self.reading == "11point":
            reached, levels = np.searchsorted(_ELEVEN, recall, side="right"), len(_ELEVEN)
        else:
            near = (recall * 100 + 0.5).astype(np.int64)
            reached, levels = near + (RECALL_LEVELS[near] <= recall), len(RECALL_LEVELS)
        steps = np.diff(reached, axis=0, prepend=0)
        steps[starts] = reached[starts]
        return np.add.reduceat(precision * steps, starts, axis=0) / levels

    @staticmethod
    def _steps(precision: np.ndarray, recall: np.ndarray, starts: np.ndarray) -> np.ndarray:
        ends = np.append(starts[1:], len(recall)) - 1
        after, before = np.roll(recall, -1, axis=0), np.roll(recall, 1, axis=0)
        after[ends], before[starts] = recall[ends], 0.0
        return recall[starts] / 2 + np.add.reduceat(precision * (after - before) / 2, starts, axis=0)


def _sums(rows: np.ndarray, images: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """(rows, M) how many of the things with a row and an image each holds."""
    # Written by hand: a conversion from coordinates would sort and add up what need not be.
    order = np.argsort(rows, kind="stable")
    pointers = np.searchsorted(rows[order], np.arange(shape[0] + 1))
    return csr_array((np.ones(len(rows)), images[order].astype(np.int32), pointers.astype(np.int32)), shape=shape)


def _shape(table: csr_array) -> tuple[int, int]:
    return cast("tuple[int, int]", table.shape)


def positives_of(images: np.ndarray, labels: np.ndarray, keep: np.ndarray, classes: int, count: int) -> csr_array:
    """(K, M) ground truths by class and image. images, labels, keep: (G,). count: M."""
    return _sums(labels[keep], images[keep], (classes, count))


def curve_cell(
    order: np.ndarray,
    labels: np.ndarray,
    images: np.ndarray,
    true: np.ndarray,
    counted: np.ndarray,
    positives: csr_array,
    reading: Reading,
    scores: np.ndarray | None = None,
) -> Cell:
    """A cell out of detections.

    order: (n,) rows by class and falling score. labels, images, true, counted: (D,). scores: (D,) where every distinct
    score is a place of the curve, not only the true detections.
    """
    order = order[counted[order]]
    labels, images, true = labels[order], images[order], true[order]
    if scores is None:
        places = np.flatnonzero(true)
    else:
        last = (np.diff(scores[order], append=np.nan) != 0) | (np.diff(labels, append=-1) != 0)
        places = np.flatnonzero(last)
    # A detection comes in at the first place from it on; what follows the last place of a class changes nothing.
    entry = np.searchsorted(places, np.arange(len(order)))
    keep = entry < len(places)
    keep[keep] = labels[places[entry[keep]]] == labels[keep]
    shape = (len(places), _shape(positives)[1])
    return Cell(
        labels[places],
        _sums(entry[keep & true], images[keep & true], shape),
        _sums(entry[keep], images[keep], shape),
        positives,
        reading,
    )


@dataclass(frozen=True)
class Figure:
    """A figure as the mean of cells, then of classes.

    cells: keys of them. size: ``small`` ... where it is of one size. classes: (K,) bool, those that it is the mean of;
    by default all that have ground truth. by_class: whether each class has it too.
    """

    cells: tuple[object, ...]
    size: str | None = None
    classes: np.ndarray | None = None
    by_class: bool = True


@dataclass(frozen=True)
class Weighable:
    """The figures of one kind as functions of the images' weights.

    figures: by name. make: key of a cell to the cell; made when needed, since all together may be large.
    """

    figures: Mapping[str, Figure]
    make: Callable[[object], Cell]
    images: int

    def values(
        self, blocks: Callable[[], Iterable[np.ndarray]], names: Sequence[str] | None = None
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Name to (n,) figure and (K, n) figure of each class under each weighting; NaN where it does not exist.

        blocks: gives all weightings anew each time, as (M, B) blocks of numbers that are not negative.
        """
        chosen = {name: self.figures[name] for name in (self.figures if names is None else names)}
        sums: dict[str, np.ndarray] = {}
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            for key in dict.fromkeys(key for figure in chosen.values() for key in figure.cells):
                values = np.concatenate(list(pool.map(self.make(key).values, blocks())), axis=1)
                for name, figure in chosen.items():
                    if key in figure.cells:
                        sums[name] = sums.get(name, 0.0) + values / len(figure.cells)
        return {name: (_mean(sums[name], chosen[name].classes), sums[name]) for name in chosen}


def in_blocks(weights: np.ndarray, most: int = AT_ONCE) -> Callable[[], Iterable[np.ndarray]]:
    """(M, n) weightings as blocks of some."""
    return lambda: (weights[:, start : start + most].astype(np.float64) for start in range(0, weights.shape[1], most))


def _mean(values: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """(n,) mean over the classes that exist. values: (K, n)."""
    if classes is not None:
        values = values[classes]
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(0) / there.sum(0)


SIZES = {"s": "small", "m": "medium", "l": "large"}


def weighable_scored(
    scored: Scored, images: int, sizes: Sequence[str], counts: Sequence[int], groups: Mapping[str, np.ndarray], end: str
) -> Weighable:
    """Of a COCO-like protocol.

    sizes: names of areas, all first. counts: of detections at which recall is read; the last is the protocol's. groups:
    letter to (K,) classes of a further AP (LVIS). end: what the name of a recall by size ends with.
    """
    thresholds = range(len(scored.thresholds))
    figures = {"AP": Figure(tuple(("AP", 0, t) for t in thresholds))}
    for t in thresholds:
        if round(float(scored.thresholds[t]), 6) in (0.5, 0.75):
            figures[f"AP{scored.thresholds[t] * 100:.0f}"] = Figure((("AP", 0, t),))
    by_size = [(a, size, SIZES.get(size, size)) for a, size in enumerate(sizes)][1:]
    for a, size, word in by_size:
        figures[f"AP{size}"] = Figure(tuple(("AP", a, t) for t in thresholds), word)
    for letter, members in groups.items():
        figures[f"AP{letter}"] = Figure(figures["AP"].cells, classes=members, by_class=False)
    for most in counts:
        figures[f"AR@{most}"] = Figure(tuple((most, 0, t) for t in thresholds))
    for a, size, word in by_size:
        figures[f"AR{size}{end}"] = Figure(tuple((counts[-1], a, t) for t in thresholds), word)

    found, sought, matched = scored.found, scored.sought, scored.matched

    def make(key: object) -> Cell:
        what, a, t = key  # type: ignore[misc]
        truth = np.full(len(found), -1, np.int64)
        truth[matched.candidates] = matched.truth[:, a, t]
        hit = truth >= 0
        true = hit.copy()
        true[hit] = ~sought.ignore[a, truth[hit]]
        positives = positives_of(sought.images, sought.labels, ~sought.ignore[a], scored.num_classes, images)
        if what == "AP":
            counted = true | (~hit & ~scored.ignore_unmatched[a])
            return curve_cell(scored.order, found.labels, found.images, true, counted, positives, "levels")
        true &= scored.ranks < what
        return recall_cell(found.labels, found.images, true, positives)

    return Weighable(figures, make, images)


def recall_cell(labels: np.ndarray, images: np.ndarray, true: np.ndarray, positives: csr_array) -> Cell:
    """A cell of recalls. labels, images, true: (D,)."""
    return Cell(
        np.arange(_shape(positives)[0]),
        _sums(labels[true], images[true], _shape(positives)),
        None,
        positives,
        "recall",
    )


def weighable_matches(
    matches: Callable[[object], Matches],
    figures: Mapping[str, Figure],
    truth_images: np.ndarray,
    truth_labels: np.ndarray,
    order: np.ndarray,
    reading: Reading,
    *,
    classes: int,
    images: int,
    places: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Weighable:
    """Of a protocol that matches at each key (a threshold, a set) by itself.

    order: (D,) by class and falling score. places: scores to what tells places of the curve apart; by default places
    are the true detections.
    """

    def make(key: object) -> Cell:
        one = matches(key)
        positives = positives_of(truth_images, truth_labels, ~one.truth_ignored, classes, images)
        true = one.true_positive
        scores = None if places is None else places(one.found.scores)
        columns = (one.found.labels, one.found.images, true, true | one.false_positive)
        return curve_cell(order, *columns, positives, reading, scores)

    return Weighable(figures, make, images)
