"""What every scoring protocol offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

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
class Report:
    """The scores of one evaluation.

    protocol: name and version of the protocol, in full. metrics: figures by name, the main one first
    (``bbox/AP``, ``segm/AP50`` ...). per_class: class name to figures. curves: class name to precision and recall
    arrays and thresholds, where the protocol has them. notes: what a reader must know to trust a figure.
    """

    protocol: str
    metrics: dict[str, Value]
    counts: Counts
    per_class: dict[str, dict[str, Value]] = field(default_factory=dict)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> str:
        """Name of the figure by which checkpoints are compared."""
        return next(iter(self.metrics))

    def __getitem__(self, name: str) -> float | None:
        return self.metrics[name].value

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; a figure that does not exist is its reason."""

        def figures(values: Mapping[str, Value]) -> dict[str, Any]:
            return {name: value.reason if value.value is None else value.value for name, value in values.items()}

        return {
            "protocol": self.protocol,
            "metrics": figures(self.metrics),
            "counts": vars(self.counts),
            "per_class": {name: figures(values) for name, values in self.per_class.items()},
            "notes": list(self.notes),
        }


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
