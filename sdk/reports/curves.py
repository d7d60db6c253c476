"""Curves as pictures: the loss of a training as a file, the figures of a report as drawings for its page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluators.analysis import ERRORS
from ..evaluators.figures import curve_of
from ..results.manifest import METRICS, read_metrics
from .page import Picture

if TYPE_CHECKING:
    from ..evaluators.analysis import Compared
    from ..evaluators.base import Errors, Report
    from ..evaluators.confidence import Calibration


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


INK = "#010203"
"""Stands for the colour of text until the drawing is done: a page's own colour, light or dark, takes its place."""
_THEME = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#dfe5ea}}</style>"  # As the page's text.
BLUE, ORANGE = "#3987d6", "#e58a2b"
CLASSES = 10
"""Curves in one chart; of more classes the best and the worst are drawn."""
BARS = 20


@contextmanager
def _chart(width: float, height: float) -> Iterator[tuple[Any, io.BytesIO]]:
    """Axes to draw on, and the drawing as SVG once it is done; text is never read as a formula."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
        "text.parse_math": False, "svg.hashsalt": "sdk", "font.size": 9, "legend.framealpha": 0,
        # The browser draws the letters, which has fonts for any script.
        "svg.fonttype": "none", "font.family": "sans-serif",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        content = io.BytesIO()
        yield axes, content
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
            figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    drawn = content.getvalue().decode().replace(INK, "currentColor")
    start = drawn.index(">", drawn.index("<svg")) + 1
    content.seek(0)
    content.truncate()
    content.write((drawn[:start] + _THEME + drawn[start:]).encode())


def _shortened(name: str) -> str:
    # XML has no place for control characters.
    name = "".join(c if c.isprintable() else " " for c in name)
    return name if len(name) <= 24 else name[:23] + "…"


def charts_of(report: Report) -> list[Picture]:
    """The drawings of a report: as many as it has the figures for."""
    charts = [precision_recall(report)] if report.curves else []
    if report.errors:
        kind = report.kinds[0]
        charts += [error_costs(report.errors[kind]), objects_by_class(report), objects_by_size(report)]
        if kind in report.calibration:
            charts.append(reliability(report.calibration[kind]))
    return charts


def precision_recall(report: Report) -> Picture:
    """Precision over recall by class, and their mean; of many classes the best and the worst."""
    curves = {name: curve_of(curve)[:2] for name, curve in report.curves.items()}
    order = sorted(curves, key=lambda name: -float(np.mean(curves[name][1])))
    half = CLASSES // 2
    shown = order if len(order) <= CLASSES else [*order[:half], *order[-half:]]
    with _chart(5.2, 4) as (axes, content):
        for name in shown:
            axes.plot(*curves[name], label=_shortened(name), linewidth=1)
        lengths = {len(recall) for recall, _ in curves.values()}
        if len(order) > 1 and len(lengths) == 1:
            recall = next(iter(curves.values()))[0]
            mean = np.mean([precision for _, precision in curves.values()], axis=0)
            axes.plot(recall, mean, color=INK, linewidth=2, label=f"mean of {len(order)}")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=8)
    which = "" if shown == order else f" of the {half} best and the {half} worst classes of {len(order)}"
    return Picture.of_drawing(f"Precision over recall{which}", content.getvalue())


def error_costs(errors: Errors) -> Picture:
    """Bars of what AP would gain were one kind of error set right."""
    names = [*ERRORS, "missed"]
    with _chart(5.2, 3) as (axes, content):
        bars = axes.barh(names, [errors.costs[name] for name in names], color=BLUE)
        axes.bar_label(bars, [f" {errors.costs[name]:.3f} ({errors.counts[name]})" for name in names])
        axes.set_xlim(0, 1.35 * max(*errors.costs.values(), 0.01))
        axes.set(xlabel=f"costs in AP{errors.iou * 100:g} (and how many there are)")
        axes.invert_yaxis()
    return Picture.of_drawing(f"What each kind of error costs; AP{errors.iou * 100:g} is {errors.ap:.3f}",
                              content.getvalue())  # fmt: skip


def _sought(report: Report) -> tuple[Compared, np.ndarray, np.ndarray]:
    """The table, rows of the ground truths that count, and (n,) bool whether each was found."""
    compared = report.compared()
    rows = np.flatnonzero(~compared.matches.truth_ignored)
    return compared, rows, compared.matches.detection[rows] >= 0


def objects_by_class(report: Report) -> Picture:
    """Bars of the objects of each class, found and missed; of many classes the most frequent."""
    compared, rows, found = _sought(report)
    labels, names = compared.truth_labels[rows], report.evaluator.classes
    counts = [np.bincount(labels[part], minlength=len(names)) for part in (found, ~found)]
    total = counts[0] + counts[1]
    shown = np.argsort(-total, kind="stable")[:BARS]
    with _chart(5.2, max(2.0, 0.8 + 0.22 * len(shown))) as (axes, content):
        places, left = np.arange(len(shown)), np.zeros(len(shown))
        for count, color, label in zip(counts, (BLUE, ORANGE), ("found", "missed")):
            axes.barh(places, count[shown], left=left, color=color, label=label)
            left = left + count[shown]
        axes.set_yticks(places, [_shortened(str(names[k])) for k in shown])
        axes.set(xlabel="objects")
        axes.invert_yaxis()
        axes.legend(fontsize=8)
    which = "" if len(shown) == len(names) else f", the {BARS} most frequent of {len(names)}"
    return Picture.of_drawing(f"Objects by class{which}", content.getvalue())


def objects_by_size(report: Report) -> Picture:
    """Objects found and missed by the side of a square of their area, in doublings."""
    compared, rows, found = _sought(report)
    sides = np.sqrt(np.maximum(compared.truth_areas[rows], 1))
    edges = 2.0 ** np.arange(np.floor(np.log2(sides.min())), np.ceil(np.log2(sides.max())) + 1.5)
    with _chart(5.2, 3) as (axes, content):
        bars = [np.histogram(sides[part], edges)[0] for part in (found, ~found)]
        places = np.arange(len(edges) - 1)
        axes.bar(places, bars[0], color=BLUE, label="found", width=0.9)
        axes.bar(places, bars[1], bottom=bars[0], color=ORANGE, label="missed", width=0.9)
        axes.set_xticks(places, [f"{a:g}-{b:g}" for a, b in pairwise(edges.tolist())])
        axes.set(xlabel="root of the area, in pixels", ylabel="objects")
        axes.legend(fontsize=8)
    return Picture.of_drawing("Objects by size", content.getvalue())


def reliability(calibration: Calibration) -> Picture:
    """Share of true detections over their score: on the diagonal where scores are worth what they say."""
    there = calibration.counts > 0
    with _chart(5.2, 3.6) as (axes, content):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":")
        axes.plot(calibration.confidence[there], calibration.accuracy[there], marker="o", color=BLUE)
        edges, shares = calibration.edges, calibration.counts / calibration.counts.sum()
        axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=INK, alpha=0.15, label="share of detections")
        axes.legend(fontsize=8, loc="upper left")
        axes.set(xlabel="score", ylabel="share of true detections", xlim=(0, 1.02), ylim=(0, 1.02))
    return Picture.of_drawing(
        f"Reliability of scores; expected calibration error {calibration.ece:.3f}", content.getvalue()
    )
