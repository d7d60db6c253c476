"""Predictions one after the other, and what becomes of images that cannot be read."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Literal, Self

import numpy as np

from ..datasets.errors import Fault
from ..reports.progress import say
from .prediction import Prediction
from .sources import Source

OnBadImage = Literal["raise", "skip"]
Readable = list[tuple[Source, np.ndarray]]
Unreadable = list[tuple[Source, Exception]]
SAID = 5
"""Images left out that are told one by one; all are counted."""


class LeftOut:
    """Images that could not be read: the first ones are said, all are kept as ``faults``.

    on_fault: ``skip`` or ``raise``; by default images found in folders are skipped, those that were named are not.
    """

    def __init__(self, on_fault: OnBadImage | None) -> None:
        self.on_fault = on_fault
        self.faults: list[Fault] = []

    def skips(self, source: Source) -> bool:
        """Whether the others go on without this image."""
        return source.found if self.on_fault is None else self.on_fault == "skip"

    def read(self, part: Sequence[Source]) -> tuple[Readable, Unreadable]:
        """The images of a part that can be read, each (H, W, 3) uint8 RGB, and the others with the reason."""
        images, bad = [], []
        for source in part:
            try:
                images.append((source, source.pixels()))
            except (ValueError, OSError) as error:
                if not self.skips(source):
                    raise
                bad.append((source, error))
        return images, bad

    def add(self, source: Source, error: Exception) -> None:
        """An image that is left out."""
        self.faults.append(source.fault(error))
        if len(self.faults) <= SAID:
            say(f"left out: {error}" if source.path else f"left out: image {source.image_id}: {error}")

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
