"""Whether one detector is better than another: differences with intervals from paired resamples of the images.

Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13 (percentile interval): images are drawn with
replacement, the same draw for both, and an image drawn twice counts twice. Holm, "A Simple Sequentially Rejective
Multiple Test Procedure", 1979, for many differences at once.

Shape letters: M images, K classes, n resamples, R rows.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import erfc, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.showing import html_table
from ..errors import SdkError
from ..evaluators.base import Report, shown_in_notebook
from ..evaluators.confidence import counts_by_image, f1_of
from ..evaluators.text import table
from ..evaluators.weighting import AT_ONCE, Weighable, in_blocks
from ..reports.examples import COLOURS, Scene, WholeImages, pictures_of
from ..reports.page import Page, Picture, Section, write_page

IMAGES, PICTURED = 100, 12
"""Changed images of each direction that a page lists, and those that it shows."""


@dataclass(frozen=True)
class Row:
    """One difference.

    figure: its name in the report. class_name, size, slice: what it is restricted to, none where it is over all. a, b:
    the figures; difference: b - a. low, high: the interval of the difference, which covers the true one in ``level`` of
    all cases when taken alone; none where fewer than two thirds of the resamples have the figure. significant: whether
    the difference is not chance, all differences of its family (figures over all, by class, of each slice) taken
    together.
    """

    figure: str
    class_name: str | None
    size: str | None
    slice: str | None
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    significant: bool


@dataclass(frozen=True)
class ImageChange:
    """An image that one model reads better: F1 of both at their best scores, and what changed in words."""

    image_id: Any
    a: float
    b: float
    why: str


@dataclass(frozen=True)
class Model:
    """name: as given. parameters: how many, none where only predictions were given. megabytes: of them as they are.
    seconds: for an image on average, with reading it, as scored here."""

    name: str
    parameters: int | None = None
    megabytes: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What changes from ``a`` to ``b``.

    rows: every difference, the main figure first. better, worse: images, the largest change first. models: of a and b.
    sources: the reports that were compared, from whose matching the pictures of a page are made.
    """

    protocol: str
    images: int
    level: float
    resamples: int
    rows: tuple[Row, ...]
    better: tuple[ImageChange, ...]
    worse: tuple[ImageChange, ...]
    models: tuple[Model, Model] = field(default=(Model("a"), Model("b")))
    sources: tuple[Report, Report] | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, figure: str) -> Row:
        """The difference of a figure over all classes and images. Raises KeyError where there is none."""
        for row in self.rows:
            if row.figure == figure and row.class_name is None and row.slice is None:
                return row
        raise KeyError(f"{figure}: no such figure; there are {', '.join(self.figures)}")

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures over all classes and images."""
        return tuple(row.figure for row in self.rows if row.class_name is None and row.slice is None)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        parts = {name: value for name, value in vars(self).items() if name != "sources"}
        listed = {name: [asdict(one) for one in parts[name]] for name in ("rows", "better", "worse", "models")}
        return parts | listed

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame([asdict(row) for row in self.rows])

    def __repr__(self) -> str:
        first = self.rows[0] if self.rows else None
        main = "nothing to compare" if first is None else f"{first.figure} {_signed(first)}"
        return f"Comparison({self.models[0].name} -> {self.models[1].name}: {main}; {self.images} images)"

    def _cells(self, rows: Iterable[Row]) -> list[tuple[str, ...]]:
        header = ("figure", "of", "a", "b", "difference", f"{self.level:.0%} interval", "not by chance")
        return [
            header,
            *(
                (
                    row.figure,
                    " ".join(part for part in (row.class_name, row.size, row.slice) if part) or "all",
                    f"{row.a:.4f}",
                    f"{row.b:.4f}",
                    f"{row.difference:+.4f}",
                    "-" if row.low is None else f"{row.low:+.4f} to {row.high:+.4f}",
                    "yes" if row.significant else "",
                )
                for row in rows
            ),
        ]

    def _shown(self) -> list[Row]:
        """Figures over all, slices, and the classes whose difference is no chance."""
        return [row for row in self.rows if row.class_name is None or row.significant]

    def __str__(self) -> str:
        lines = [
            self.protocol,
            f"a: {_described(self.models[0])}",
            f"b: {_described(self.models[1])}",
            f"{self.images} images, {self.resamples} resamples of them",
            "",
            *table(self._cells(self._shown())),
        ]
        for title, changes in (("better in b", self.better), ("worse in b", self.worse)):
            if changes:
                rows = [(str(c.image_id), f"{c.a:.2f}", f"{c.b:.2f}", c.why) for c in changes[:5]]
                lines += ["", *table([(title, "F1 a", "F1 b", "why"), *rows])]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.protocol)}</p>{html_table(self._cells(self._shown()))}"

    def show(self) -> None:
        """Shows the comparison: as a table in a notebook, else as text."""
        if not shown_in_notebook(self):
            print(self)

    def page(self, path: str | os.PathLike, dataset: DetectionDataset | None = None) -> Path:
        """Writes an HTML page with every difference, and with the images that changed most side by side, a left and b
        right, where the compared ``dataset`` is given and its images can be read."""
        lead = (
            self.protocol,
            *(f"{name}: {_described(model)}" for name, model in zip("ab", self.models)),
            f"{self.images} images, {self.resamples} resamples of them",
        )
        classes = sorted((r for r in self.rows if r.class_name is not None), key=lambda r: -abs(r.difference))
        sections = [Section("Figures", self._cells(row for row in self.rows if row.class_name is None))]
        if classes:
            sections.append(Section("Classes", self._cells(classes), text="The largest differences first."))
        for title, changes in (("Better in b", self.better), ("Worse in b", self.worse)):
            rows = [(str(c.image_id), f"{c.a:.2f}", f"{c.b:.2f}", c.why) for c in changes[:IMAGES]]
            pictures = self._pictures(changes[:PICTURED], dataset)
            text = f"{len(changes)} images. a left, b right. {COLOURS}" if pictures else f"{len(changes)} images."
            head = ("image", "F1 of a", "F1 of b", "why")
            sections.append(Section(title, [head, *rows] if rows else (), pictures, width=24, text=text))
        title = f"{self.models[0].name} and {self.models[1].name}"
        return write_page(Page(title, lead, sections), Path(path))

    def _pictures(self, changes: Sequence[ImageChange], dataset: DetectionDataset | None) -> list[Picture]:
        if dataset is None or self.sources is None:
            return []
        tables = [report.compared() for report in self.sources]
        place = self.sources[0].evaluator.truth.position
        views = [WholeImages(table) for table in tables]
        scenes = [
            Scene(
                place[c.image_id],
                f"image {c.image_id}: F1 {c.a:.2f} to {c.b:.2f}; {c.why}",
                [view.outlines(place[c.image_id]) for view in views],
                None,
            )
            for c in changes
        ]
        return pictures_of(lambda image: dataset[image].image, scenes)


def _signed(row: Row) -> str:
    interval = "" if row.low is None else f" ({row.low:+.4f} to {row.high:+.4f})"
    return f"{row.difference:+.4f}{interval}"


def _described(model: Model) -> str:
    parts = [model.name]
    if model.parameters is not None:
        parts.append(f"{model.parameters / 1e6:.1f} million parameters ({model.megabytes:.0f} MB)")
    if model.seconds is not None:
        parts.append(f"{model.seconds * 1000:.0f} ms an image")
    return ", ".join(parts)


def require_comparable(a: Report, b: Report) -> None:
    """Raises SdkError, which says what differs, for reports of other data, another protocol or other classes."""
    for name, report in (("a", a), ("b", b)):
        if not hasattr(report.evaluator, "weighable"):
            raise SdkError(
                f"{name}: this report by {report.protocol} holds no matching in which images could be weighted; "
                "compare the reports that sdk.evaluate returns, runs or results files"
            )
    if a.protocol != b.protocol:
        raise SdkError(f"the protocols differ: a was scored by {a.protocol}, b by {b.protocol}")
    first, second = a.evaluator.truth, b.evaluator.truth
    if tuple(first.classes) != tuple(second.classes):
        only = [sorted(set(map(str, x)) - set(map(str, y)))[:3] for x, y in _both_ways(first.classes, second.classes)]
        order = "" if any(only) else "; the same ones stand in another order"
        raise SdkError(f"the classes differ: only a has {only[0] or 'none'}, only b has {only[1] or 'none'}{order}")
    if list(first.image_ids) != list(second.image_ids):
        only = [[i for i in x if i not in set(y)] for x, y in _both_ways(first.image_ids, second.image_ids)]
        raise SdkError(
            f"the images differ: {len(only[0])} are only in a (such as {only[0][:1]}), {len(only[1])} only in b "
            f"(such as {only[1][:1]}); a has {len(first.image_ids)}, b {len(second.image_ids)}"
        )
    for name in ("offsets", "labels", "boxes", "ignore", "crowd"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours.shape != theirs.shape or not np.array_equal(ours, theirs):
            raise SdkError(
                f"the annotations differ (in their {name}): a was scored on {len(first.labels)} objects, "
                f"b on {len(second.labels)}"
            )
    if a.kinds != b.kinds:
        raise SdkError(f"what was scored differs: a has {', '.join(a.kinds)}, b has {', '.join(b.kinds)}")


def _both_ways(a: Any, b: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (a, b), (b, a)


def draws(images: int, resamples: int, seed: int, mask: np.ndarray | None = None) -> Callable[[], Iterable[np.ndarray]]:
    """(M, B) blocks of how often each image is drawn; the same ones each time. mask: (M,) only these count."""

    def blocks() -> Iterable[np.ndarray]:
        for start in range(0, resamples, AT_ONCE):
            draw = np.random.default_rng((seed, start))
            size = min(AT_ONCE, resamples - start)
            places = draw.integers(0, images, (size, images)) + np.arange(size)[:, None] * images
            weights = np.bincount(places.ravel(), minlength=size * images).reshape(size, images).T.astype(np.float64)
            yield weights if mask is None else weights * mask[:, None]

    return blocks


def compare_reports(
    a: Report,
    b: Report,
    *,
    slices: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    models: tuple[Model, Model] = (Model("a"), Model("b")),
) -> Comparison:
    """Compares two reports that hold their matching.

    slices: attribute to value to (M,) bool, the images that have it. level: of the intervals. seed: of the draws.

    Raises:
        SdkError: when data, protocol or classes differ, or there are fewer than two images.
    """
    require_comparable(a, b)
    images = len(a.evaluator.truth.image_ids)
    if images < 2:
        raise SdkError(f"a comparison needs several images, found {images}")
    if resamples < 2:
        raise SdkError(f"resamples: expected 2 and more, found {resamples}")
    if not 0 < level < 1:
        raise SdkError(f"level: expected between 0 and 1, found {level}")
    rows: list[Row] = []
    masks: list[tuple[str | None, np.ndarray | None]] = [(None, None)]
    for attribute, values in (slices or {}).items():
        masks += [(f"{attribute}={value}", mask) for value, mask in values.items()]
    for kind in a.kinds:
        pair = a.evaluator.weighable(kind), b.evaluator.weighable(kind)
        for name, mask in masks:
            rows += _rows(pair, a.evaluator.classes, kind, name, mask, resamples, level, seed)
    better, worse = image_changes(a, b)
    return Comparison(a.protocol, images, level, resamples, tuple(rows), better, worse, models, (a, b))


def _rows(
    pair: tuple[Weighable, Weighable],
    classes: Sequence[str],
    kind: str,
    name: str | None,
    mask: np.ndarray | None,
    resamples: int,
    level: float,
    seed: int,
) -> list[Row]:
    images = pair[0].images
    whole = in_blocks(np.ones((images, 1)) if mask is None else mask[:, None])
    blocks = draws(images, resamples, seed, mask)
    exact = [one.values(whole) for one in pair]
    drawn = [one.values(blocks) for one in pair]
    groups: tuple[list[tuple], list[tuple]] = [], []
    for figure, settings in pair[0].figures.items():
        a, b = (one[figure] for one in exact)
        differences = [second - first for first, second in zip(drawn[0][figure], drawn[1][figure])]
        groups[0].append((figure, None, settings.size, a[0][0], b[0][0], differences[0]))
        if settings.by_class and name is None:
            groups[1].extend(
                (figure, str(classes[k]), settings.size, a[1][k, 0], b[1][k, 0], differences[1][k])
                for k in range(len(classes))
            )
    rows: list[Row] = []
    for group in groups:
        there = [one for one in group if not np.isnan(one[3])]
        chances = np.array([chance(b - a, differences) for *_, a, b, differences in there])
        for (figure, label, size, a, b, differences), sure in zip(there, holm(chances, 1 - level)):
            low, high = interval(differences, level)
            figures = (float(a), float(b), float(b - a), low, high)
            rows.append(Row(f"{kind}/{figure}", label, size, name, *figures, bool(sure)))
    return rows


def interval(differences: np.ndarray, level: float) -> tuple[float | None, float | None]:
    """Percentile interval of (n,) resampled differences; none where a third of them and more does not exist."""
    known = differences[~np.isnan(differences)]
    if len(known) * 3 < len(differences) * 2:
        return None, None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def chance(difference: float, differences: np.ndarray) -> float:
    """How often a difference at least this far from none comes by chance: normal, with the deviation of the resamples.

    Resamples themselves tell no chance below one in their number, which Holm's correction over many rows needs.
    """
    known = differences[~np.isnan(differences)]
    if difference == 0 or len(known) * 3 < len(differences) * 2:
        return 1.0
    deviation = float(known.std(ddof=1))
    return 0.0 if deviation == 0 else erfc(abs(difference) / deviation / sqrt(2))


def holm(chances: np.ndarray, alpha: float) -> np.ndarray:
    """(R,) bool: which of the hypotheses fall while no true one does in 1 - alpha of all cases. chances: (R,)."""
    order = np.argsort(chances, kind="stable")
    passes = chances[order] <= alpha / np.arange(len(chances), 0, -1)
    fallen = np.zeros(len(chances), bool)
    fallen[order[np.logical_and.accumulate(passes)]] = True
    return fallen


def image_changes(a: Report, b: Report) -> tuple[tuple[ImageChange, ...], tuple[ImageChange, ...]]:
    """The images that b reads better and worse than a, the largest change of F1 first; ties by how much changed."""
    (true_a, false_a, missed_a), (true_b, false_b, missed_b) = (counts_by_image(one.compared()) for one in (a, b))

    before, after = f1_of(true_a, false_a, missed_a), f1_of(true_b, false_b, missed_b)
    found, false = true_b - true_a, false_b - false_a
    order = np.lexsort((-np.abs(found) - np.abs(false), -np.abs(after - before)))
    ids = a.evaluator.truth.image_ids

    def change(i: int) -> ImageChange:
        parts = [(int(found[i]), "object", " found"), (int(false[i]), "false detection", "")]
        words = [
            f"{abs(count)} {'more' if count > 0 else 'fewer'} {what}{'s' * (abs(count) > 1)}{end}"
            for count, what, end in parts
            if count
        ]
        return ImageChange(ids[i], float(before[i]), float(after[i]), ", ".join(words))

    better = tuple(change(i) for i in order if after[i] > before[i])
    return better, tuple(change(i) for i in order if after[i] < before[i])
