"""Lines on standard error, and how far a long job is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping


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
