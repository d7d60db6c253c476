"""Figures of a report out of curves: averages over classes, with the reason where there is nothing to average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from .analysis import Compared
from .base import Value
from .confidence import best_thresholds
from .matching import RECALL_LEVELS, Scored

SIZE_WORDS = {"s": "small", "m": "medium", "l": "large"}


def changes(protocol: Any) -> str:
    """The settings in which a protocol differs from the official one."""
    values = ((field.name, getattr(protocol, field.name), field.default) for field in fields(protocol))
    return ", ".join(f"{name}={value!r}" for name, value, default in values if value != default)


def mean(values: np.ndarray, present: np.ndarray, reason: str) -> Value:
    """Mean over everything, of the classes present. values: (..., K). present: (K,) bool."""
    if not present.any():
        return Value(None, reason)
    return Value(float(np.mean(values[..., present])))


def no_truth(size: str = "all", kind: str = "ground truth") -> str:
    """Why a figure over a size does not exist."""
    return f"no {kind}" if size == "all" else f"no {kind} of this size ({SIZE_WORDS.get(size, size)})"


def per_class_figures(
    scored: Scored, classes: Sequence[str], kind: str, sizes: Sequence[str]
) -> dict[str, dict[str, Value]]:
    """AP, AP50, AP75, AP by size and AR of every class."""
    curves = scored.curves
    named = np.flatnonzero(np.isin(np.round(scored.thresholds, 6), (0.5, 0.75)))
    table = {}
    for k, name in enumerate(classes):

        def figure(values: np.ndarray, area: int, k: int = k) -> Value:
            present = curves.positives[area, k : k + 1] > 0
            return mean(values[..., None], present, no_truth(sizes[area]))

        row = {
            f"{kind}/AP": figure(curves.precision[0, :, k].mean(), 0),
            **{
                f"{kind}/AP{scored.thresholds[t] * 100:.0f}": figure(curves.precision[0, t, k].mean(), 0) for t in named
            },
        }
        for area, size in enumerate(sizes):
            if area:
                row[f"{kind}/AP{size}"] = figure(curves.precision[area, :, k].mean(), area)
        row[f"{kind}/AR"] = figure(curves.recall[0, :, k].mean(), 0)
        table[name] = row
    return table


def add_best_thresholds(
    per_class: dict[str, dict[str, Value]], compared: Compared, classes: Sequence[str], kind: str
) -> None:
    """Adds to each class the score threshold of highest F1, and that F1: the one criterion in all protocols."""
    best = best_thresholds(compared)
    for label, name in enumerate(classes):
        threshold, f1 = best.get(label, (None, None))
        reason = None if f1 is not None else "no detection matched"
        per_class[name] |= {f"{kind}/best_threshold": Value(threshold, reason), f"{kind}/best_F1": Value(f1, reason)}


def curves_by_class(scored: Scored, classes: Sequence[str], kind: str) -> dict[str, dict[str, np.ndarray]]:
    """Precision, recall and score threshold (101,) of every class that has ground truth, at the lowest threshold."""
    t = int(np.argmin(scored.thresholds))
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
