"""The page of an evaluation: figures, charts, costs of errors, confusions, and the pictures that show them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..datasets.base import DetectionDataset
from ..evaluators.analysis import ConfusionMatrix, confusion_matrix, error_breakdown
from ..evaluators.base import Report, as_text, error_rows, figure_rows
from ..results.files import write_bytes
from .curves import charts_of
from .examples import COLOURS, Examples, anchor_of, pictures_of
from .page import Cell, Matrix, Page, Picture, Section, write_page

CONFUSED = 20
"""Classes in the matrix of a page: of more those that are confused most."""


def evaluation_page(
    report: Report, title: str, dataset: DetectionDataset | None = None, suspects: Sequence[Picture] = ()
) -> Page:
    """The page of a report. dataset: what was scored, for pictures. suspects: of annotations that may be wrong."""
    counts = report.counts
    lead = (
        report.protocol,
        f"{counts.images} images, {counts.ground_truths} ground truths ({counts.ignored} more ignored), "
        f"{counts.detections} detections",
    )
    sections = [Section("Figures", [("figure", "value"), *((n, str(v)) for n, v in report.metrics.items())])]
    charts = charts_of(report)
    if charts:
        sections.append(Section("Charts", pictures=charts, width=24))
    if report.errors:
        sections.append(Section("What errors cost", error_rows(report)))
        sections += [Section(f"Where the errors are: {k}", _group_rows(report, k)) for k in report.errors]
    for kind in report.kinds if report.per_class else ():
        sections.append(Section(f"Classes: {kind}", _class_rows(report, kind)))
    if report.froc:
        sections.append(Section("What scores are worth", _score_rows(report)))
    for attribute, values in report.slices.items():
        sections.append(Section(f"By {attribute}", figure_rows(attribute, values)))
    if hasattr(report.evaluator, "compared"):
        sections += _confusions(report, dataset)
    if suspects:
        text = "White: annotated. Green: suggested. sdk.review lists all of them, and makes a file of what is accepted."
        sections.append(Section("Labels that may be wrong", pictures=suspects, text=text))
    return Page(title, lead, sections, report.notes)


def _confusions(report: Report, dataset: DetectionDataset | None) -> list[Section]:
    compared, truth = report.compared(), report.evaluator.truth
    classes = [str(name) for name in report.evaluator.classes]
    matrix = confusion_matrix(compared, classes)
    pictures = []
    if dataset is not None:
        chosen = Examples(compared, matrix, error_breakdown(compared), classes, truth.image_ids)
        pictures = pictures_of(lambda image: dataset[image].image, chosen.scenes())
    anchors = {picture.anchor for picture in pictures}
    labels = _most_confused(matrix)
    text = (
        f"Rows: what is there; columns: what was said, at IoU {matrix.iou:g} and a score of {matrix.score:g} or more."
        + (
            f" The {len(labels)} classes of {len(classes)} that are confused most."
            if len(labels) < len(classes)
            else ""
        )
        + (" A cell leads to its pictures." if pictures else "")
    )
    sections = [Section("Confusions", text=text, matrix=_matrix(matrix, labels, anchors))]
    if pictures:
        worst = [picture for picture in pictures if not picture.marks]
        others = [picture for picture in pictures if picture.marks]
        about = f"Lowest F1 first. {COLOURS}"
        sections.append(Section("Worst images", pictures=worst, width=24, text=about))
        sections.append(Section("Examples", pictures=others, text=COLOURS))
    return sections


def _most_confused(matrix: ConfusionMatrix) -> list[int]:
    wrong = matrix.table - np.diag(np.diag(matrix.table))
    # Being taken for nothing, or seen where nothing is, comes after being taken for another class.
    confused = wrong[:-1, :-1].sum(0) + wrong[:-1, :-1].sum(1)
    order = np.lexsort((-matrix.table[:-1].sum(1), -confused))
    return sorted(order[:CONFUSED].tolist())


def _matrix(matrix: ConfusionMatrix, labels: Sequence[int], anchors: set[str]) -> Matrix:
    background = len(matrix.classes)
    shown = [*labels, background]
    totals = np.maximum(matrix.table.sum(axis=1), 1)
    names = [matrix.classes[k] if k < background else "background" for k in shown]

    def cell(i: int, j: int) -> Cell:
        anchor = anchor_of(i, j)
        count = int(matrix.table[i, j])
        return Cell(count, count / float(totals[i]), anchor if anchor in anchors else "")

    return Matrix(names, [[cell(i, j) for j in shown] for i in shown])


def _class_rows(report: Report, kind: str) -> list[tuple[str, ...]]:
    """Header and one row a class, of the figures of one kind."""
    own = {
        name: {figure.removeprefix(f"{kind}/"): value for figure, value in row.items() if figure.startswith(f"{kind}/")}
        for name, row in report.per_class.items()
    }
    return figure_rows("class", own)


def _group_rows(report: Report, kind: str) -> list[tuple[str, ...]]:
    groups = report.errors[kind].by_group
    costs = [name for name in next(iter(next(iter(groups.values())).values())) if name not in ("objects", "recall")]
    rows = [("by", "group", "objects", "found", *costs)]
    for grouping, values in groups.items():
        for name, row in values.items():
            found = f"{row['recall']:.1%}" if "recall" in row else "-"
            rows.append((grouping, name, f"{row['objects']:.0f}", found, *(f"{row[cost]:.4f}" for cost in costs)))
    return rows


def _score_rows(report: Report) -> list[tuple[str, ...]]:
    """Calibration, optimal LRP and FROC of each kind of figure."""
    rows: list[tuple[str, ...]] = [("", *report.froc)]
    ece = (report.calibration.get(kind) for kind in report.froc)
    rows.append(("expected calibration error", *("-" if one is None else f"{one.ece:.4f}" for one in ece)))
    lrp = ([one.lrp for one in report.lrp[kind].values()] for kind in report.froc)
    rows.append(("optimal LRP, mean over classes", *(f"{np.mean(one):.4f}" if one else "-" for one in lrp)))
    for rate in next(iter(report.froc.values())):
        values = (report.froc[kind][rate] for kind in report.froc)
        name = f"found at {rate:g} false detections an image"
        rows.append((name, *("-" if value is None else f"{value:.4f}" for value in values)))
    return rows


def write_report(report: Report, folder: Path, page: Page) -> Path:
    """``report.txt``, ``report.json`` and ``report.html``, which is the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "report.txt", (as_text(report) + "\n").encode())
    write_bytes(folder / "report.json", (json.dumps(report.to_dict(), indent=2) + "\n").encode())
    return write_page(page, folder / "report.html")
