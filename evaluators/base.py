"""What every scoring protocol offers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.showing import html_table
from . import confidence
from .analysis import SPECIAL, Compared, average_costs, error_breakdown, group_costs
from .text import table

if TYPE_CHECKING:
    from ..models.structures import Detections


@dataclass(frozen=True)
class Value:
    """One figure of a report: a number in 0..1, or none together with the reason why it does not exist."""

    value: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a figure has either a value or the reason why there is none")

    def __str__(self) -> str:
        return f"{self.value:.4f}" if self.value is not None else f"none ({self.reason})"


@dataclass(frozen=True)
class Counts:
    """What the evaluator saw."""

    images: int
    ground_truths: int
    detections: int
    ignored: int


@dataclass(frozen=True)
class Errors:
    """What each kind of error costs: AP that would be gained were the errors of this kind alone set right (0..1).

    iou: the threshold of a match. ap: AP at it. costs: by kind (``classification``, ``localization``, ``both``,
    ``duplicate``, ``background``, ``missed``; ``false positives`` and ``false negatives`` are all false detections and
    all objects that were not found). counts: how many there are. by_class: class with ground truth to kind to what its
    own AP would gain. by_group: ``size``, ``crowding``, ``border`` and ``aspect ratio``, then group, then kind, with
    the group's ``objects`` and their ``recall``.
    """

    iou: float
    ap: float
    costs: dict[str, float]
    counts: dict[str, int]
    by_class: dict[str, dict[str, float]]
    by_group: dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Report:
    """The scores of one evaluation.

    protocol: name and version of the protocol, in full. metrics: figures by name, the main one first
    (``bbox/AP``, ``segm/AP50`` ...). per_class: class name to figures. curves: class name to precision and recall
    arrays and thresholds, where the protocol has them. notes: what a reader must know to trust a figure. slices: name
    of an attribute to its values, to the figures over the images that have it. evaluator: holds the table of matched
    detections, from which errors, calibration and what else is asked are read; it does not travel between processes.
    """

    protocol: str
    metrics: dict[str, Value]
    counts: Counts
    per_class: dict[str, dict[str, Value]] = field(default_factory=dict)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    slices: dict[str, dict[str, dict[str, Value]]] = field(default_factory=dict)
    evaluator: Any = field(default=None, repr=False, compare=False)

    @property
    def main(self) -> str:
        """Name of the figure by which checkpoints are compared."""
        return next(iter(self.metrics))

    @property
    def kinds(self) -> tuple[str, ...]:
        """What was compared: ``bbox``, ``segm``, ``boundary``."""
        return tuple(dict.fromkeys(name.partition("/")[0] for name in self.metrics))

    def __getitem__(self, name: str) -> float | None:
        return self.metrics[name].value

    def compared(self, kind: str | None = None, iou: float | None = None) -> Compared:
        """The table of matched detections of one kind, by default of the first at the protocol's own threshold.

        Raises ValueError where the report has none: it came from a file or another process, or the protocol matches
        no classes, or not at this IoU.
        """
        if not hasattr(self.evaluator, "compared"):
            raise ValueError("this report holds no matching: ask the one that sdk.evaluate returns")
        kind = kind or self.kinds[0]
        if iou is not None:
            return self.evaluator.compared(kind, iou)
        return self._tables.setdefault(kind, self.evaluator.compared(kind))

    @cached_property
    def _tables(self) -> dict[str, Compared]:
        return {}

    @cached_property
    def errors(self) -> dict[str, Errors]:
        """What each kind of error costs, by kind of figure; empty without a matching or without ground truth."""
        if not hasattr(self.evaluator, "compared"):
            return {}
        found = {kind: self.errors_at(kind=kind) for kind in self.kinds}
        return {kind: one for kind, one in found.items() if one is not None}

    def errors_at(self, iou: float | None = None, kind: str | None = None) -> Errors | None:
        """What each kind of error costs at another IoU threshold; none where there is no ground truth.

        Raises ValueError as ``compared`` does.
        """
        compared = self.compared(kind, iou)
        found = error_breakdown(compared)
        if found is None:
            return None
        by_class = {
            str(name): {error: float(gains[label]) for error, gains in found.by_class.items()}
            for label, name in enumerate(self.evaluator.classes)
            if label < compared.classes and compared.positives[label]
        }
        matches = compared.matches
        both = dict(zip(SPECIAL, (int(matches.false_positive.sum()), int(matches.missed.sum()))))
        costs, counts = {**found.costs, **found.special}, {**found.counts, **both}
        return Errors(found.iou, found.ap, costs, counts, by_class, group_costs(found))

    def average_error_costs(self, ious: Sequence[float] | None = None, kind: str | None = None) -> dict[str, float]:
        """Mean cost of each kind of error over IoU thresholds, by default all of the protocol's.

        Raises ValueError as ``compared`` does, and where there is no ground truth.
        """
        thresholds = ious if ious is not None else getattr(self.evaluator.protocol, "ious", (0.5,))
        found = [error_breakdown(self.compared(kind, float(iou))) for iou in thresholds]
        breakdowns = [one for one in found if one is not None]
        if not breakdowns:
            raise ValueError("there is no ground truth, and so nothing that an error could cost")
        return average_costs(breakdowns)

    @cached_property
    def calibration(self) -> dict[str, confidence.Calibration]:
        """Expected calibration error and reliability curve, by kind of figure; absent where scores are none of 0..1."""
        if not hasattr(self.evaluator, "compared"):
            return {}
        found = {kind: confidence.calibration(self.compared(kind)) for kind in self.kinds}
        return {kind: one for kind, one in found.items() if one is not None}

    @cached_property
    def lrp(self) -> dict[str, dict[str, confidence.LRP]]:
        """Optimal LRP of every class with ground truth, by kind of figure."""
        if not hasattr(self.evaluator, "compared"):
            return {}
        names = self.evaluator.classes
        return {
            kind: {str(names[label]): one for label, one in confidence.optimal_lrp(self.compared(kind)).items()}
            for kind in self.kinds
        }

    @cached_property
    def froc(self) -> dict[str, dict[float, float | None]]:
        """Sensitivity at so many false detections an image, all classes cut at one score, by kind of figure."""
        if not hasattr(self.evaluator, "compared"):
            return {}
        return {
            kind: {
                rate: None if np.isnan(value) else float(value)
                for rate, value in zip(confidence.FALSE_ALARMS, confidence.froc(self.compared(kind)))
            }
            for kind in self.kinds
        }

    def precision_at(self, recall: float, kind: str | None = None) -> dict[str, Value]:
        """By class with ground truth, the best precision at which this share of its objects is found.

        Raises ValueError for a recall outside 0..1, and as ``compared`` does.
        """
        compared = self.compared(kind)
        reached = confidence.precision_at(compared, recall)
        return {
            str(name): Value(reached[label][0])
            if label in reached
            else Value(None, f"a recall of {recall:g} is not reached")
            for label, name in enumerate(self.evaluator.classes)
            if label < compared.classes and compared.positives[label]
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; a figure that does not exist is its reason."""

        def figures(values: Mapping[str, Value]) -> dict[str, Any]:
            return {name: value.reason if value.value is None else value.value for name, value in values.items()}

        return {
            "protocol": self.protocol,
            "metrics": figures(self.metrics),
            "counts": vars(self.counts),
            "per_class": {name: figures(values) for name, values in self.per_class.items()},
            "slices": {
                name: {value: figures(row) for value, row in rows.items()} for name, rows in self.slices.items()
            },
            "errors": {kind: asdict(one) for kind, one in self.errors.items()},
            "calibration": {kind: one.to_dict() for kind, one in self.calibration.items()},
            "lrp": {kind: {name: asdict(one) for name, one in rows.items()} for kind, rows in self.lrp.items()},
            "froc": {kind: {str(rate): value for rate, value in rows.items()} for kind, rows in self.froc.items()},
            "notes": list(self.notes),
        }

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each figure: ``figure``, ``class_name`` and ``slice`` (none where it is of
        all), ``value`` (NaN where there is none), ``reason``."""
        import pandas

        rows = [(name, None, None, value) for name, value in self.metrics.items()]
        rows += [(f, c, None, value) for c, figures in self.per_class.items() for f, value in figures.items()]
        rows += [
            (figure, None, f"{attribute}={name}", value)
            for attribute, values in self.slices.items()
            for name, figures in values.items()
            for figure, value in figures.items()
        ]
        columns = ["figure", "class_name", "slice", "value", "reason"]
        return pandas.DataFrame([(*keys, one.value, one.reason) for *keys, one in rows], columns=columns)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "evaluator": None, "_tables": {}}

    def __repr__(self) -> str:
        return f"Report({self.protocol.partition(' (')[0]}: {headline(self)}; {self.counts.images} images)"

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        figures = [("figure", "value"), *((name, str(value)) for name, value in self.metrics.items())]
        tables = [figures, error_rows(self) if self.errors else [], class_rows(self) if self.per_class else []]
        tables += [figure_rows(attribute, values) for attribute, values in self.slices.items()]
        notes = "".join(f"<p>note: {html.escape(note)}</p>" for note in self.notes)
        return f"<p>{html.escape(self.protocol)}</p>{''.join(html_table(rows) for rows in tables if rows)}{notes}"

    def show(self) -> None:
        """Shows the report: as a table in a notebook, else as text."""
        if not shown_in_notebook(self):
            print(self)


def shown_in_notebook(value: Any) -> bool:
    """Shows a value below the cell that runs; whether there is one."""
    try:
        from IPython.core.getipython import get_ipython  # pyright: ignore[reportMissingImports]
        from IPython.display import display  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    if get_ipython() is None:
        return False
    display(value)
    return True


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
    if report.errors:
        lines += ["", *table(error_rows(report))]
    if report.per_class:
        lines += ["", *table(class_rows(report))]
    for attribute, values in report.slices.items():
        lines += ["", *table(figure_rows(attribute, values))]
    if report.notes:
        lines += ["", *(f"note: {note}" for note in report.notes)]
    return "\n".join(lines)


def error_rows(report: Report) -> list[tuple[str, ...]]:
    """Header and one row a kind of error: what it costs and how many there are."""
    header = [
        f"{kind}: {what}" for kind, one in report.errors.items() for what in (f"costs AP{one.iou * 100:g}", "count")
    ]
    rows = [("error", *header)]
    for name in next(iter(report.errors.values())).costs:
        cells = ((f"{one.costs[name]:.4f}", str(one.counts[name])) for one in report.errors.values())
        rows.append((name, *(cell for pair in cells for cell in pair)))
    return rows


def class_rows(report: Report) -> list[tuple[str, ...]]:
    """Header and one row a class; a figure that does not exist is a dash."""
    return figure_rows("class", report.per_class)


def figure_rows(title: str, table: Mapping[str, Mapping[str, Value]]) -> list[tuple[str, ...]]:
    """Header and one row a name; a figure that does not exist is a dash."""
    names = list(next(iter(table.values()), {}))
    rows = [(title, *names)]
    for name, figures in table.items():
        values = (figures[key].value if key in figures else None for key in names)
        rows.append((name, *("-" if value is None else f"{value:.4f}" for value in values)))
    return rows


@runtime_checkable
class ScoringProtocol(Protocol):
    """An official protocol or a variation of it; ``str`` of it names it in full."""

    def evaluator(self, dataset: DetectionDataset, masks: bool) -> Any:
        """Scores a dataset; masks: whether masks are scored too."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Collects detections, then scores them by one protocol."""

    def update(self, image_ids: Sequence[Any], detections: Sequence[Detections]) -> None:
        """Add the detections of some images, in original image pixels; each image once."""
        ...

    def merge(self, other: Self) -> None:
        """Add what another rank collected."""
        ...

    def state(self) -> dict[str, Any]:
        """What was collected, as plain arrays: what ranks send instead of the evaluator."""
        ...

    def merge_state(self, state: dict[str, Any]) -> None:
        """Add the state of another rank."""
        ...

    def compute(self) -> Report: ...
