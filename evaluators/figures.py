"""Figures of a report out of curves: averages over classes, with the reason where there is nothing to average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from .base import Report, Value
from .matching import RECALL_LEVELS, Scored

SIZE_WORDS = {"s": "small", "m": "medium", "l": "large"}


def mean(values: np.ndarray, present: np.ndarray, reason: str) -> Value:
    """Mean over everything, of the classes present. values: (..., K). present: (K,) bool."""
    if not present.any():
        return Value(None, reason)
    return Value(float(np.mean(values[..., present])))


def no_truth(size: str = "all", kind: str = "ground truth") -> str:
    """Why a figure over a size does not exist."""
    return f"no {kind}" if size == "all" else f"no {kind} of this size ({SIZE_WORDS[size]})"


def best_thresholds(scored: Scored, iou: float = 0.5) -> dict[int, tuple[float, float]]:
    """Class to (score threshold, F1): where keeping detections of at least that score gives the best F1.

    Only classes with a true positive are in it.
    """
    matches = scored.matches(iou)
    order = scored.order[~matches.ignored[scored.order]]
    labels, scores, true = scored.found.labels[order], scored.found.scores[order], matches.true_positive[order]
    best = {}
    bounds = np.searchsorted(labels, np.arange(scored.num_classes + 1))
    for label, (start, stop) in enumerate(pairwise(bounds)):
        tp = np.cumsum(true[start:stop])
        if stop == start or tp[-1] == 0:
            continue
        # Equal scores stand or fall together: only the last of them is a place to cut.
        cut = np.flatnonzero(np.diff(scores[start:stop], append=-np.inf))
        f1 = 2 * tp[cut] / (cut + 1 + scored.curves.positives[0, label])
        at = int(np.argmax(f1))
        best[label] = (float(scores[start + cut[at]]), float(f1[at]))
    return best


def per_class_figures(
    scored: Scored, classes: Sequence[str], kind: str, sizes: Sequence[str]
) -> dict[str, dict[str, Value]]:
    """AP, AP50, AP75, AP by size, AR and the best score threshold of every class."""
    curves = scored.curves
    best = best_thresholds(scored)
    t50, t75 = scored.threshold_index(0.5), scored.threshold_index(0.75)
    table = {}
    for k, name in enumerate(classes):

        def figure(values: np.ndarray, area: int, k: int = k) -> Value:
            present = curves.positives[area, k : k + 1] > 0
            return mean(values[..., None], present, no_truth(sizes[area]))

        row = {
            f"{kind}/AP": figure(curves.precision[0, :, k].mean(), 0),
            f"{kind}/AP50": figure(curves.precision[0, t50, k].mean(), 0),
            f"{kind}/AP75": figure(curves.precision[0, t75, k].mean(), 0),
        }
        for area, size in enumerate(sizes):
            if area:
                row[f"{kind}/AP{size}"] = figure(curves.precision[area, :, k].mean(), area)
        row[f"{kind}/AR"] = figure(curves.recall[0, :, k].mean(), 0)
        threshold, f1 = best.get(k, (None, None))
        reason = None if f1 is not None else "no detection matched"
        row[f"{kind}/best_threshold"] = Value(threshold, reason)
        row[f"{kind}/best_F1"] = Value(f1, reason)
        table[name] = row
    return table


def curves_by_class(
    scored: Scored, classes: Sequence[str], kind: str, iou: float = 0.5
) -> dict[str, dict[str, np.ndarray]]:
    """Precision, recall and score threshold (101,) of every class that has ground truth, at one IoU threshold."""
    t = scored.threshold_index(iou)
    return {
        name: {
            f"{kind}/recall": RECALL_LEVELS,
            f"{kind}/precision": scored.curves.precision[0, t, k],
            f"{kind}/thresholds": scored.curves.scores[0, t, k],
        }
        for k, name in enumerate(classes)
        if scored.curves.positives[0, k]
    }


def tables(
    scored: Mapping[str, Scored], classes: Sequence[str], sizes: Sequence[str]
) -> tuple[dict[str, dict[str, Value]], dict[str, dict[str, np.ndarray]], list[str]]:
    """Figures by class, curves by class and explanations of every kind that was scored."""
    per_class: dict[str, dict[str, Value]] = {name: {} for name in classes}
    curves: dict[str, dict[str, np.ndarray]] = {}
    notes: list[str] = []
    for kind, one in scored.items():
        for name, row in per_class_figures(one, classes, kind, sizes).items():
            per_class[name].update(row)
        for name, curve in curves_by_class(one, classes, kind).items():
            curves.setdefault(name, {}).update(curve)
        notes += explain(one, kind)
    return per_class, curves, notes


def explain(scored: Scored, kind: str) -> list[str]:
    """Why figures of a kind are zero, where they are."""
    if not len(scored.found):
        return [f"{kind}: there are no detections"]
    if not scored.curves.positives[0].any():
        return [f"{kind}: there is no ground truth"]
    if (scored.matched.truth >= 0).any():
        return []
    found, sought = set(np.unique(scored.found.labels)), set(np.unique(scored.sought.labels))
    if not found & sought:
        return [f"{kind}: no prediction matched: the classes of detections and ground truths are disjoint"]
    if not len(scored.pairs):
        return [f"{kind}: no prediction matched: none overlaps any ground truth; are both in the same pixels?"]
    return [f"{kind}: no prediction matched at IoU {scored.thresholds.min():g} or more"]


def curve_of(curve: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and score thresholds of a class's curve; of its first kind (``bbox/``, ``segm/``)."""
    recall = next(name for name in curve if name.endswith("recall"))
    kind = recall.removesuffix("recall")
    return curve[recall], curve[f"{kind}precision"], curve[f"{kind}thresholds"]


def with_best_thresholds(report: Report) -> Report:
    """The report with the score, for each class that has a curve, at which precision and recall together are best.

    Best is the highest F1, the harmonic mean of both, on the curve that the protocol draws.
    """
    per_class = {name: dict(figures) for name, figures in report.per_class.items()}
    for name, curve in report.curves.items():
        recall, precision, thresholds = curve_of(curve)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        if name not in per_class or not f1.max(initial=0) > 0:
            continue
        per_class[name]["best threshold"] = Value(float(thresholds[f1.argmax()]))
        per_class[name]["F1 there"] = Value(float(f1.max()))
    return replace(report, per_class=per_class)
