"""Predictions one after the other, and what becomes of images that cannot be read."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Literal, Self

from ..datasets.errors import Fault
from ..reports.progress import say
from .prediction import Prediction
from .sources import Source

OnBadImage = Literal["raise", "skip"]
SAID = 5
"""Images left out that are told one by one; all are counted."""


def skips(source: Source, on_fault: OnBadImage | None) -> bool:
    """Whether the others go on where this image cannot be read: by default where it was found in a folder or by a
    pattern, and not where it was named."""
    return source.found if on_fault is None else on_fault == "skip"


class LeftOut:
    """Images that could not be read: the first ones are said, all are kept as ``faults``."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Why an image is left out."""
        self.faults.append(fault)
        if len(self.faults) <= SAID:
            say(f"left out: {fault.error()}")

    def close(self, seen: int) -> None:
        """Says how many of the images ``seen`` were left out."""
        if self.faults:
            say(f"{len(self.faults):,} of {seen:,} images could not be read and are left out (.faults names them)")


class Predictions(list[Prediction]):
    """Predictions of several images in their order, and as ``faults`` the images that could not be read."""

    def __init__(self, made: Iterator[Prediction], faults: list[Fault]) -> None:
        super().__init__(made)
        self.faults = faults


class PredictionStream(Iterator[Prediction]):
    """Predictions that are made while they are asked for, a batch at a time.

    The batches that come next are read meanwhile; nothing else is held. faults: the images so far that could not be
    read. Whoever stops early may ``close`` it, or use it in a ``with`` statement.
    """

    def __init__(self, made: Generator[Prediction], faults: list[Fault]) -> None:
        self._made, self.faults = made, faults

    def __next__(self) -> Prediction:
        return next(self._made)

    def close(self) -> None:
        """Ends it; images that are being read are given up."""
        self._made.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
