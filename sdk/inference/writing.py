"""Predictions as files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from ..errors import SdkError
from ..reports.pictures import save_image
from .sources import Source


class Names:
    """A name for each image, as a path below a folder: its id as text, with a number where that is taken."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def add(self, source: Source) -> str:
        """The name of one more image."""
        name = "/".join(_safe(part) for part in str(source.image_id).split("/"))
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        free = next(name for name in itertools.chain([name], numbered) if name not in self._taken)
        self._taken.add(free)
        return free


def _safe(part: str) -> str:
    """A part of a path that leads nowhere else."""
    return "".join("_" if c in "\\:\0" else c for c in part) if part.strip(".") else "_"


class Pictures:
    """A folder of pictures with the detections, PNG files; earlier ones of the same name are replaced."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._names = Names()
        self._apart: set[Path] = set()

    def write(self, source: Source, drawn: np.ndarray) -> None:
        """One (H, W, 3) uint8 RGB picture. Raises SdkError where the image was read from this folder."""
        if source.path is not None and source.path.parent not in self._apart:
            folder = source.path.parent.resolve()
            if folder == self.folder or (source.found and self.folder in folder.parents):
                raise SdkError(f"{self.folder}: images are read from this folder; give another one for the pictures")
            self._apart.add(source.path.parent)
        path = self.folder / f"{self._names.add(source)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(path, drawn)
