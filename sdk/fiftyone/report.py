"""One HTML file with figures, curves, confusions, errors and pictures of what went wrong; it needs no server."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.errors import DatasetError
from ..datasets.index import columns_of
from ..evaluators.analysis import ERRORS, Compared, ErrorBreakdown, confusion_matrix
from ..evaluators.base import Report
from ..evaluators.matching import Matches
from ..reports.curves import draw_confusion, draw_precision_recall
from ..reports.drawing import draw_boxes
from ..reports.page import report_page, write_page
from ..reports.pictures import save_image
from .predictions import Predictions

TILE = 220
"""Side of one picture of a gallery, in pixels."""
PICTURES = 12


def write_html(
    path: Path,
    dataset: DetectionDataset,
    found: Predictions,
    report: Report,
    compared: Compared,
    breakdown: ErrorBreakdown | None,
) -> Path:
    """The report in a single file: pictures are inside of it.

    Galleries show the most confident errors of each kind and missed objects; images that cannot be read are left out.
    """
    matches = compared.matches
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures: list[tuple[str, Path]] = []
        if report.curves:
            draw_precision_recall(report, folder / "curves.png")
            pictures.append(("Precision over recall", folder / "curves.png"))
        draw_confusion(confusion_matrix(compared, dataset.classes), folder / "confusion.png")
        pictures.append(("What was there against what was said", folder / "confusion.png"))
        if breakdown is not None:
            draw_errors(breakdown, folder / "errors.png")
            pictures.append(("What each kind of error costs in AP50, and how many there are", folder / "errors.png"))
        for name, rows in failures(matches, breakdown).items():
            tiles = [tile for tile in (_detection_tile(dataset, found, matches, d) for d in rows) if tile is not None]
            pictures += _gallery(folder, f"{name}: detection with its score, ground truth in white", tiles)
        missed = np.flatnonzero(matches.missed)[:PICTURES]
        tiles = [tile for tile in (_missed_tile(dataset, int(row)) for row in missed) if tile is not None]
        pictures += _gallery(folder, "missed objects", tiles)
        return write_page(report_page(report, "What the detector gets right and wrong", pictures), path)


def failures(matches: Matches, breakdown: ErrorBreakdown | None) -> dict[str, Sequence[int]]:
    """The most confident false detections by kind of error; of any kind where the protocol does not tell."""
    by_score = np.argsort(-matches.found.scores, kind="stable")
    if breakdown is None:
        return {"false positives": by_score[matches.false_positive[by_score]][:PICTURES].tolist()}
    kinds = {name: by_score[breakdown.kind[by_score] == number] for number, name in enumerate(ERRORS)}
    return {f"{name} errors": rows[:PICTURES].tolist() for name, rows in kinds.items() if len(rows)}


def draw_errors(breakdown: ErrorBreakdown, path: Path) -> None:
    """Bars of what AP50 would gain were one kind of error set right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(breakdown.costs), list(breakdown.costs.values()), color="#4878a8")
    axes.bar_label(bars, [f" {cost:.3f} ({breakdown.counts[name]})" for name, cost in breakdown.costs.items()])
    axes.set(xlabel=f"AP50 that it costs (AP50 is {breakdown.ap:.3f})")
    axes.set_xlim(0, 1.35 * max(*breakdown.costs.values(), 0.01))
    axes.invert_yaxis()
    figure.savefig(path, dpi=110)


def _detection_tile(dataset: DetectionDataset, found: Predictions, matches: Matches, d: int) -> np.ndarray | None:
    image, index = int(matches.found.images[d]), int(matches.found.index[d])
    row = int(np.flatnonzero((found.images == image) & (found.index == index))[0])
    name = dataset.classes[found.labels[row]]
    return _tile(dataset, image, found.boxes[row], int(found.labels[row]), f"{name} {found.scores[row]:.2f}")


def _missed_tile(dataset: DetectionDataset, row: int) -> np.ndarray | None:
    columns = columns_of(dataset)
    image = int(np.searchsorted(columns.image_offsets, row, side="right")) - 1
    label = int(columns.labels[row])
    return _tile(dataset, image, columns.boxes[row], label, str(dataset.classes[label]))


def _tile(dataset: DetectionDataset, image: int, box: np.ndarray, label: int, caption: str) -> np.ndarray | None:
    """(TILE, TILE, 3) uint8: the surroundings of a box with the image's ground truth in white; none without image."""
    try:
        sample = dataset[image]
    except DatasetError:
        return None
    x1, y1, x2, y2 = box.tolist()
    side = max(x2 - x1, y2 - y1, 16) * 1.6
    left, top = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2
    scale = TILE / side
    moved = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    tile = cv2.warpAffine(sample.image, moved, (TILE, TILE), flags=cv2.INTER_AREA, borderValue=(230, 230, 230))
    shift = np.array([left, top, left, top])
    for truth in (sample.boxes - shift) * scale:
        a, b, c, e = (round(float(v)) for v in truth)
        cv2.rectangle(tile, (a, b), (c, e), (255, 255, 255), 1)
    return draw_boxes(tile, ((box - shift) * scale)[None], np.array([label]), [caption])


def _gallery(folder: Path, caption: str, tiles: Sequence[np.ndarray]) -> list[tuple[str, Path]]:
    """One picture of up to four tiles a row."""
    if not tiles:
        return []
    wide = min(4, len(tiles))
    blank = np.full((TILE, TILE, 3), 255, np.uint8)
    padded = [*tiles, *[blank] * (-len(tiles) % wide)]
    rows = [np.concatenate(padded[i : i + wide], axis=1) for i in range(0, len(padded), wide)]
    path = folder / f"{re.sub(r'[^a-z]+', '_', caption.partition(':')[0])}.jpg"
    save_image(path, np.concatenate(rows))
    return [(caption, path)]
