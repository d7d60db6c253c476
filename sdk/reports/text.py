"""A report as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluators.base import Report


def headline(report: Report) -> str:
    """The first figures of a report in one line."""
    figures = list(report.metrics.items())[:3]
    return ", ".join(f"{name} {'none' if figure.value is None else f'{figure.value:.4f}'}" for name, figure in figures)


def as_text(report: Report) -> str:
    """A report as plain text: protocol, counts, every figure, the classes, the notes."""
    counts = report.counts
    lines = [
        report.protocol,
        f"{counts.images} images, {counts.ground_truths} ground truths ({counts.ignored} more ignored), "
        f"{counts.detections} detections",
        "",
        *table([("figure", "value"), *((name, str(figure)) for name, figure in report.metrics.items())]),
    ]
    if report.per_class:
        lines += ["", *table(class_rows(report))]
    if report.notes:
        lines += ["", *(f"note: {note}" for note in report.notes)]
    return "\n".join(lines)


def class_rows(report: Report) -> list[tuple[str, ...]]:
    """Header and one row a class; a figure that does not exist is a dash."""
    names = list(next(iter(report.per_class.values())))
    rows = [("class", *names)]
    for name, figures in report.per_class.items():
        values = (figures[key].value if key in figures else None for key in names)
        rows.append((name, *("-" if value is None else f"{value:.4f}" for value in values)))
    return rows


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns lined up; the first row is the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
