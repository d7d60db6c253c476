"""The page of a check: what is wrong with a dataset, its classes, and images that are the same picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..datasets.checking import SIZES, CheckReport
from .page import Page, Picture, Section


def check_page(report: CheckReport, title: str, pairs: Sequence[Picture] = ()) -> Page:
    """The page of a check. pairs: pictures of images that are the same, see ``pictures.draw_pairs``."""
    lead = [
        f"{report.images:,} images, {report.annotations:,} annotations, "
        f"{report.images_without_objects:,} images without objects",
        "no error" if report.ok else "errors were found: what training or scoring cannot use",
    ]
    sizes = [name for name, _, _ in SIZES]
    classes: list[Sequence[str]] = [("class", "objects", "images", "ignored", *sizes)]
    for name, count in report.classes.items():
        numbers = (count.objects, count.images, count.ignored, *(count.by_size[size] for size in sizes))
        classes.append((name, *map(str, numbers)))
    counts = Counter((fault.level, fault.kind) for fault in report.faults)
    sections = [Section("Classes", classes)]
    if counts:
        kinds = [(level, kind, str(number)) for (level, kind), number in sorted(counts.items())]
        sections.append(Section("Faults by kind", [("level", "kind", "faults"), *kinds]))
        rows = [(f.level, f.kind, *(_text(v) for v in (f.file, f.where, f.field, f.found, f.expected)))
                for f in report.faults]  # fmt: skip
        sections.append(Section("Faults", [("level", "kind", "file", "where", "field", "found", "expected"), *rows]))
    if pairs:
        text = f"{len(report.leaks)} pairs, those between splits first."
        sections.append(Section("The same picture", pictures=pairs, width=24, text=text))
    return Page(title, lead, sections)


def _text(value: str | None) -> str:
    return "" if value is None else str(value)
