"""A report as files: text, JSON and a page."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..results.files import write_bytes
from .text import as_text, class_rows

if TYPE_CHECKING:
    from ..evaluators.base import Report


def write_report(report: Report, folder: Path, title: str, pictures: Sequence[tuple[str, Path]] = ()) -> Path:
    """``report.txt``, ``report.json`` and ``report.html`` with the pictures (caption, file) beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "report.txt", (as_text(report) + "\n").encode())
    write_bytes(folder / "report.json", (json.dumps(report.to_dict(), indent=2) + "\n").encode())
    figures = "".join(_html_row("td", (name, str(value))) for name, value in report.metrics.items())
    classes = ""
    if report.per_class:
        first, *rest = class_rows(report)
        classes = (
            f"<h2>Classes</h2><table>{_html_row('th', first)}{''.join(_html_row('td', row) for row in rest)}</table>"
        )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in report.notes)
    shown = "".join(
        f'<figure><img src="{html.escape(os.path.relpath(path, folder))}" loading="lazy">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, path in pictures
    )
    counts = report.counts
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}}
table{{border-collapse:collapse}}td,th{{padding:.2em 1em;border-bottom:1px solid #ddd;text-align:left}}
figure{{margin:1em 0}}img{{max-width:100%}}figcaption{{color:#555}}</style>
<h1>{html.escape(title)}</h1>
<p>{html.escape(report.protocol)}</p>
<p>{counts.images} images, {counts.ground_truths} ground truths ({counts.ignored} more ignored),
{counts.detections} detections</p>
<h2>Figures</h2><table>{figures}</table>
{classes}
{f"<h2>Notes</h2><ul>{notes}</ul>" if notes else ""}
{f"<h2>Pictures</h2>{shown}" if shown else ""}
</html>
"""
    path = folder / "report.html"
    write_bytes(path, page.encode())
    return path


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
