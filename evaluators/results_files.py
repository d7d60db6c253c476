"""COCO results files as columns.

A file of a million entries is decoded by msgspec, where it is installed and every entry is well formed, straight into
typed records. All else is read by the standard library, and looked at entry by entry for what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

try:
    import msgspec
except ModuleNotFoundError:
    msgspec = None


@dataclass(frozen=True)
class Results:
    """The entries of a file, field by field.

    boxes: (n, 4) x, y, width, height, or none where the first entry has no box. masks: the ``segmentation`` of each
    entry, parsed when it is asked for, or none where they are not wanted.
    """

    image_ids: list[Any]
    category_ids: list[Any]
    scores: np.ndarray
    boxes: np.ndarray | None
    masks: Sequence[Any] | None


if msgspec is not None:

    class _Boxed(msgspec.Struct, gc=False):
        image_id: int | str
        category_id: int | str
        score: float
        bbox: tuple[float, float, float, float]

    class _Masked(msgspec.Struct, gc=False):
        image_id: int | str
        category_id: int | str
        score: float
        segmentation: msgspec.Raw  # pyright: ignore[reportInvalidTypeForm]
        bbox: tuple[float, float, float, float] | None = None


class _Parsed(Sequence):
    """Raw JSON values that are parsed one by one."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        return json.loads(bytes(self.entries[index].segmentation))


def read_well_formed(path: Path, *, boxes: bool, masks: bool) -> Results | None:
    """The entries of a file whose entries are all well formed; else none, and nothing is said about why.

    boxes, masks: whether every entry must have a box, and a mask.
    """
    if msgspec is None:
        return None
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=list[_Masked if masks else _Boxed])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    count = len(entries)
    edges = None
    if boxes:
        found = [entry.bbox for entry in entries if entry.bbox is not None]
        if len(found) < count:
            return None
        edges = np.fromiter((edge for box in found for edge in box), np.float64, 4 * count)
    return Results(
        image_ids=[entry.image_id for entry in entries],
        category_ids=[entry.category_id for entry in entries],
        scores=np.fromiter((entry.score for entry in entries), np.float64, count),
        boxes=None if edges is None else edges.reshape(-1, 4),
        masks=_Parsed(entries) if masks else None,
    )
