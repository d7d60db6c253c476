"""COCO results files, and Parquet files with the same, as columns.

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

from ..datasets.errors import DatasetError

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
        entries = msgspec.json.decode(path.read_bytes(), type=list[_Masked] if masks else list[_Boxed])
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


PARQUET = ("image_id", "category_id", "score", "x1", "y1", "x2", "y2")
"""Columns of a Parquet file of predictions that are read, boxes in pixels."""
PARQUET_MASKS = ("mask", "height", "width")
"""Those of masks: run lengths in COCO's compressed form, and the size of the image."""


def parquet_columns(path: Path) -> list[str]:
    """Names of the columns of a Parquet file. Raises DatasetError where it is none."""
    return list(_open_parquet(path).schema_arrow.names)


def read_parquet(path: Path, *, masks: bool) -> Results:
    """The objects of a Parquet file that ``sdk.predict`` wrote. masks: whether every object must have a mask.

    Raises DatasetError for a file that cannot be read, or lacks a column; ImportError without pyarrow.
    """
    file = _open_parquet(path)
    wanted = [*PARQUET, *(PARQUET_MASKS if masks else ())]
    missing = [name for name in wanted if name not in file.schema_arrow.names]
    if missing:
        raise DatasetError("column is missing", file=path, field=missing[0], found=file.schema_arrow.names)
    table = file.read(wanted)
    columns = {name: table.column(name) for name in wanted}
    for name, column in columns.items():
        if column.null_count:
            raise DatasetError("values are missing", file=path, field=name, found=f"{column.null_count} rows without")
    x1, y1, x2, y2 = (columns[name].to_numpy().astype(np.float64) for name in PARQUET[3:])
    runs = None
    if masks:
        sides = zip(*(columns[name].to_pylist() for name in PARQUET_MASKS))
        runs = [{"size": [height, width], "counts": counts} for counts, height, width in sides]
    return Results(
        image_ids=columns["image_id"].to_pylist(),
        category_ids=columns["category_id"].to_pylist(),
        scores=columns["score"].to_numpy().astype(np.float64),
        boxes=np.stack([x1, y1, x2 - x1, y2 - y1], axis=1),
        masks=runs,
    )


def _open_parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise ImportError("reading Parquet needs pyarrow: pip install 'detection-sdk[parquet]'") from error
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DatasetError(f"not a Parquet file ({error})", file=path) from None
