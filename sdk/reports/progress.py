"""Lines on standard error, and how far a long job is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import cache
from typing import Self

from rich import progress as rich_progress
from rich.console import Console


@cache
def console() -> Console:
    """Where progress is shown: standard error, or the cell of a notebook. One for all, so that bars stand together."""
    return Console(stderr=True)


def say(text: str) -> None:
    """One line on standard error, at once; above the bars where there are any."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """How far a long job is: rate, time left, and the figures that matter.

    A bar on terminals and in notebooks; elsewhere a line every ``every`` seconds. To be used in a ``with`` statement.
    """

    def __init__(
        self,
        total: int,
        per_step: int = 1,
        *,
        unit: str = "images",
        start: int = 0,
        shown: bool = True,
        every: float = 15.0,
    ) -> None:
        """Counts from ``start`` to ``total`` steps of ``per_step`` units each."""
        self.per_step, self.unit, self.every = per_step, unit, every
        self.live = shown and (console().is_terminal or console().is_jupyter)
        self.lines = shown and not self.live
        self.last = time.monotonic()
        # Texts are shown as they are: class and file names may look like markup.
        self.bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=20),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[rate]}", markup=False),
            rich_progress.TimeRemainingColumn(compact=True),
            rich_progress.TextColumn("{task.fields[figures]}", markup=False),
            console=console(),
            disable=not self.live,
            transient=True,
        )
        self.task = self.bar.add_task("", total=total, completed=start, rate="", figures="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def show(self, step: int, title: str, figures: Mapping[str, float] | None = None) -> None:
        """The state after ``step`` of all steps."""
        told = "  ".join(f"{name} {value:.3g}" for name, value in (figures or {}).items())
        task = self.bar.tasks[0]
        rate = "" if task.speed is None else f"{task.speed * self.per_step:.1f} {self.unit}/s"
        # The bar is drawn ten times a second, and when the job is done.
        last = step == task.total
        self.bar.update(self.task, completed=step, description=title, rate=rate, figures=told, refresh=last)
        now = time.monotonic()
        if self.lines and (now - self.last >= self.every or last):
            self.last = now
            left = "" if task.time_remaining is None else f"{_clock(task.time_remaining)} left"
            say("  ".join(part for part in (title, f"{step}/{task.total:g}", rate, left, told) if part))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
