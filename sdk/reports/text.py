"""A report as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

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


# Dashes below the header, two spaces between columns; plain characters, so that any terminal and file can hold it.
_LINES = Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns lined up, however wide; the first row is the header."""
    made = Table(*(Column(Text(title)) for title in rows[0]), box=_LINES, show_edge=False, pad_edge=False)
    for row in rows[1:]:
        made.add_row(*map(Text, row))
    width = sum(max(cell_len(row[i]) for row in rows) + 3 for i in range(len(rows[0])))
    console = Console(width=width, color_system=None, file=StringIO())
    with console.capture() as captured:
        console.print(made)
    return [line.rstrip() for line in captured.get().splitlines()]
