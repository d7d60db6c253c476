"""One image with its annotations.

Shape letters: H x W pixels of the image, N objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Masks(Protocol):
    """Instance masks of one image, kept as polygons or run lengths and decoded only when asked for.

    Geometry moves with the image lazily; every method returns a new object.
    """

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image that the masks lie in."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, keep: np.ndarray) -> Masks:
        """The masks of the kept objects (bool mask or indices)."""
        ...

    def decode(self) -> np.ndarray:
        """(N, H, W) uint8."""
        ...

    def resize(self, size: tuple[int, int]) -> Masks:
        """The masks in the image resized to (H, W)."""
        ...

    def flip(self, direction: str) -> Masks:
        """Mirrored: ``horizontal``, ``vertical`` or ``diagonal``."""
        ...

    def place(self, top: int, left: int, size: tuple[int, int]) -> Masks:
        """Moved onto a canvas of (H, W), the old origin at (top, left), which may be negative: pads, shifts, crops."""
        ...


@dataclass(frozen=True)
class Sample:
    """One image with its annotations; transforms map a sample to another.

    image: (H, W, 3) uint8 RGB. boxes: (N, 4) float32 xyxy pixels, x2 and y2 exclusive ends.
    labels: (N,) int64 in 0..K-1. masks: lazy, or none. ignore: (N,) bool, true for objects that neither count as
    found nor as missed (crowd, difficult, invalid: the dataset's own word). semantic: (H, W) uint8 or none.
    proposals: (P, 4) float32 xyxy or none. image_id and path: where it comes from.
    original_size: (H, W) as read from disk; scale: (x, y) with ``now = original * scale``.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    image_id: Any
    path: Path | None = None
    masks: Masks | None = None
    semantic: np.ndarray | None = None
    proposals: np.ndarray | None = None
    original_size: tuple[int, int] = (0, 0)
    scale: tuple[float, float] = field(default=(1.0, 1.0))

    def __post_init__(self) -> None:
        if self.original_size == (0, 0):
            object.__setattr__(self, "original_size", self.size)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    def keep(self, kept: np.ndarray) -> Sample:
        """The same image with only the kept objects (bool mask or indices)."""
        masks = None if self.masks is None else self.masks[kept]
        return replace(self, boxes=self.boxes[kept], labels=self.labels[kept], ignore=self.ignore[kept], masks=masks)
