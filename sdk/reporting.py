"""What the verbs say and leave to be looked at: lines, tables, curves, pictures, reports."""

from __future__ import annotations

import html
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .checkpoint import METRICS, Trained, read_metrics, write_bytes
from .drawing import draw_boxes, draw_detections

if TYPE_CHECKING:
    from .datasets.base import DetectionDataset
    from .evaluators.analysis import ConfusionMatrix
    from .evaluators.base import Report
    from .models.tta import TTA


def say(text: str) -> None:
    """One line on standard error, at once."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """A line that says how far a long job is: rate, time left, and the figures that matter.

    On a terminal the line is rewritten; elsewhere a line is written every ``every`` seconds.
    """

    def __init__(
        self, total: int, images_per_step: int, start: int = 0, shown: bool = True, every: float = 15.0
    ) -> None:
        self.total, self.images_per_step, self.start, self.shown = total, images_per_step, start, shown
        self.terminal = sys.stderr.isatty()
        self.every = 0.2 if self.terminal else every
        self.began = self.last = time.monotonic()

    def show(self, step: int, title: str, figures: Mapping[str, float]) -> None:
        """Shows the state after ``step`` of ``total`` steps, if it is time to."""
        now = time.monotonic()
        if not self.shown or (now - self.last < self.every and step < self.total):
            return
        self.last = now
        rate = (step - self.start) / max(now - self.began, 1e-9)
        left = _clock((self.total - step) / max(rate, 1e-9))
        told = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        line = f"{title}  {step}/{self.total}  {rate * self.images_per_step:.1f} images/s  {left} left  {told}"
        if self.terminal:
            width = self._width()
            print(f"\r{line[:width]:<{width}}", end="", file=sys.stderr, flush=True)
        else:
            say(line)

    def note(self, text: str) -> None:
        """A line that stays."""
        if self.shown:
            # Over the whole of the line that was there.
            say(f"\r{text:<{self._width()}}" if self.terminal else text)

    @staticmethod
    def _width() -> int:
        # Terminals of containers and of `script` say that they have no columns.
        return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class MetricsLog:
    """Figures of a training as JSON lines and for TensorBoard.

    Opened at ``step``: later lines are of a training that was broken off, and go.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / METRICS
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = open(path, "a")  # noqa: SIM115
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def step(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Figures of one step."""
        self._write({"step": step, "epoch": epoch, **figures})
        for name, value in figures.items():
            self.board.add_scalar(f"train/{name}", value, step)

    def report(self, step: int, epoch: int, report: Report) -> None:
        """Figures of one scoring."""
        figures = {name: figure.value for name, figure in report.metrics.items()}
        self._write({"step": step, "epoch": epoch, "protocol": report.protocol, "metrics": figures})
        for name, value in figures.items():
            if value is not None:
                self.board.add_scalar(f"val/{name}", value, step)

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        self.board.close()


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


def curve_of(curve: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and score thresholds of a class's curve; of its first kind (``bbox/``, ``segm/``)."""
    recall = next(name for name in curve if name.endswith("recall"))
    kind = recall.removesuffix("recall")
    return curve[recall], curve[f"{kind}precision"], curve[f"{kind}thresholds"]


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


def draw_examples(
    dataset: DetectionDataset, trained: Trained, folder: Path, count: int = 8, tta: TTA | None = None
) -> list[Path]:
    """Ground truth beside detections for some images spread over the dataset, as PNG files."""
    from .predict import detect

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)):
        sample = dataset[int(index)]
        found = detect(trained, [sample.image], tta)[0]
        kept = sample.keep(~sample.ignore)
        names = [str(dataset.classes[label]) for label in kept.labels]
        pair = np.concatenate(
            [
                draw_boxes(sample.image, kept.boxes, kept.labels, names),
                draw_detections(sample.image, found, dataset.classes),
            ],
            axis=1,
        )
        path = folder / f"{_file_name(sample.image_id)}.png"
        save_image(path, pair)
        written.append(path)
    return written


def _file_name(image_id: Any) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in str(image_id))


def save_image(path: Path, image: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 RGB in the format that the file name says."""
    done, content = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"{path}: no such image format")
    write_bytes(path, content.tobytes())


def write_report(report: Report, folder: Path, title: str, pictures: Sequence[tuple[str, Path]] = ()) -> Path:
    """``report.txt``, ``report.json`` and ``report.html`` with the pictures (caption, file) beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "report.txt", (as_text(report) + "\n").encode())
    write_bytes(folder / "report.json", (json.dumps(as_json(report), indent=2) + "\n").encode())
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


def as_json(report: Report) -> dict[str, Any]:
    """A report as plain values; a figure that does not exist is its reason."""

    def figures(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value.reason if value.value is None else value.value for name, value in values.items()}

    return {
        "protocol": report.protocol,
        "metrics": figures(report.metrics),
        "counts": vars(report.counts),
        "per_class": {name: figures(values) for name, values in report.per_class.items()},
        "notes": list(report.notes),
    }
