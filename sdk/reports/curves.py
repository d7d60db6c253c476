"""Curves and tables as pictures: loss, precision over recall, confusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..evaluators.figures import curve_of
from ..results.manifest import METRICS, read_metrics

if TYPE_CHECKING:
    from ..evaluators.analysis import ConfusionMatrix
    from ..evaluators.base import Report


def draw_curves(folder: Path) -> None:
    """Loss and main figure over the steps of a training, as ``curves.png``."""
    from matplotlib.figure import Figure

    lines = read_metrics(folder / METRICS)
    steps = [line for line in lines if "loss" in line]
    scored = [line for line in lines if "metrics" in line]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [name for name in (steps[0] if steps else {}) if name not in ("step", "epoch", "lr", "gradient_norm")]
    for name in names:
        values = np.asarray([line.get(name, np.nan) for line in steps])
        width = max(1, len(values) // 100)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        left.plot([line["step"] for line in steps][width - 1 :], smooth, label=name)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    right.set(xlabel="step", ylabel="score", ylim=(0, 1))
    for name in list(scored[0]["metrics"])[:3] if scored else ():
        known = [(line["step"], line["metrics"][name]) for line in scored if line["metrics"].get(name) is not None]
        right.plot([step for step, _ in known], [value for _, value in known], marker="o", label=name)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(folder / "curves.png", dpi=110)


def draw_precision_recall(report: Report, path: Path, most: int = 20) -> None:
    """Precision over recall for each class that the report has a curve of, the ``most`` first ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for name, curve in list(report.curves.items())[:most]:
        recall, precision, _ = curve_of(curve)
        axes.plot(recall, precision, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=report.protocol)
    axes.title.set_fontsize(8)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_confusion(matrix: ConfusionMatrix, path: Path) -> None:
    """Shares of each class that is there (rows) in what was said (columns), with the counts where they fit."""
    from matplotlib.figure import Figure

    names = [*matrix.classes, "background"]
    size = min(12.0, 3 + 0.35 * len(names))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = matrix.table / np.maximum(matrix.table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="said", ylabel="there", title=f"IoU {matrix.iou:g}, score {matrix.score:g} or more")
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= 15:
        for (row, column), count in np.ndenumerate(matrix.table):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=color)
    figure.savefig(path, dpi=110)
