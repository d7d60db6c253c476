"""Large JSON files as columns, a block at a time: memory holds the columns and one block, never text or tree.

Shape letters: n elements of an array.

The reading itself is native (``csrc/json_rows.cpp``). An element in which something is not as expected is marked, and
is then decoded by Python, which can say what is wrong; a file that is no JSON is left to ``json_arrays`` for the same
reason, and so is every file where the native part was not built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DatasetError
from .index import Segments, Texts

try:
    # By name, for a part without a Python file is none that imports can be followed to.
    _json_rows: Any = import_module(f"{__package__}._json_rows")
except ImportError:
    _json_rows = None

BLOCK = 1 << 20
"""Bytes that are read at a time."""
_SPACE = re.compile(rb"[ \t\r\n]*")
_MARK = b"\xef\xbb\xbf"


class Kind(IntEnum):
    """What a field is expected to hold: a whole number, the same or a truth value, a finite number, four of them, text
    without escapes, or a mask as COCO writes it."""

    WHOLE = 0
    FLAG = 1
    NUMBER = 2
    BOX = 3
    TEXT = 4
    MASK = 5


Fields = Mapping[str, Kind]


@dataclass(frozen=True)
class Masks:
    """A field of masks. extents: (n, 4) smallest x, y and largest x, y of the polygons. sizes: (n, 2) height and width
    that the run lengths state and cover."""

    segments: Segments
    extents: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class Rows:
    """The n elements of an array. starts, ends: (n,) where each lies in the file. regular: (n,) bool, whether it is an
    object whose fields, where it has them, are as expected.

    given: by field, (n,) bool, whether it is there and as expected; else its value says nothing. values: by field,
    (n,) int64 or float64, (n, 4) of boxes, ``Texts`` or ``Masks``.
    """

    file: Path
    starts: np.ndarray
    ends: np.ndarray
    regular: np.ndarray
    given: Mapping[str, np.ndarray]
    values: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.starts)

    def entries(self, rows: Iterable[int] | None = None) -> Iterator[Any]:
        """The elements themselves, all or some."""
        with open(self.file, "rb") as stream:
            for row in range(len(self)) if rows is None else rows:
                stream.seek(self.starts[row])
                try:
                    yield json.loads(stream.read(self.ends[row] - self.starts[row]))
                except ValueError as error:
                    raise DatasetError(f"file changed while it was read ({error})", file=self.file) from None


@dataclass(frozen=True)
class JsonColumns:
    """The arrays in the object at the top of a file; takes the place of ``JsonArrays``."""

    file: Path
    arrays: Mapping[str, Rows]

    def has(self, name: str) -> bool:
        """Whether the object has an array of that name."""
        return name in self.arrays

    def elements(self, name: str) -> Iterator[Any]:
        """The elements of an array."""
        return self.arrays[name].entries()

    def rows(self, name: str) -> Rows:
        """The array as columns."""
        return self.arrays[name]


def read_object(file: Path, wanted: Mapping[str, Fields]) -> JsonColumns | None:
    """The wanted arrays of the object at the top of a file, by name; none where it cannot be read so."""
    if _json_rows is None:
        return None
    arrays: dict[str, Rows] = {}
    passed: set[str] = set()
    try:
        with open(file, "rb", buffering=0) as stream:
            blocks = _Blocks(file, stream)
            blocks.expect(b"{")
            while blocks.sign() != b"}":
                if passed:
                    blocks.expect(b",")
                blocks.sign()
                name = json.loads(blocks.skip())
                if not isinstance(name, str) or name in passed:
                    return None
                passed.add(name)
                blocks.expect(b":")
                if blocks.sign() == b"[":
                    rows = blocks.rows(wanted.get(name, {}))
                    if name in wanted:
                        arrays[name] = rows
                else:
                    blocks.skip()
    except (OSError, ValueError):
        return None
    # What is wanted and not an array has to be said, or may be missing.
    return None if (passed & wanted.keys()) - arrays.keys() else JsonColumns(file, arrays)


def read_array(file: Path, fields: Fields) -> Rows | None:
    """The array at the top of a file; none where it cannot be read so."""
    if _json_rows is None:
        return None
    try:
        with open(file, "rb", buffering=0) as stream:
            blocks = _Blocks(file, stream)
            blocks.sign()
            rows = blocks.rows(fields)
            return rows if blocks.at_end() else None
    except (OSError, ValueError):
        return None


class _Blocks:
    """A file as a window that moves forward. Its methods raise ValueError where the file is no JSON, or ends."""

    def __init__(self, file: Path, stream: FileIO) -> None:
        self._file, self._stream = file, stream
        # One place more than data, for the zero behind it.
        self._data = bytearray(2 * BLOCK + 1)
        self._start = self._place = self._end = 0
        self._more()
        if self._data.startswith(_MARK):
            self._place = len(_MARK)

    def sign(self) -> bytes:
        """The next sign that is no space, which is not passed."""
        while True:
            space = _SPACE.match(self._data, self._place, self._end)
            self._place = space.end() if space else self._place
            if self._place < self._end:
                return bytes(self._data[self._place : self._place + 1])
            self._more()

    def expect(self, sign: bytes) -> None:
        """Passes this sign."""
        if self.sign() != sign:
            raise ValueError
        self._place += 1

    def skip(self) -> bytes:
        """Passes a value and gives its text."""
        while (end := _json_rows.skip(self._data, self._place, self._end)) is None:
            self._more()
        text = bytes(self._data[self._place : end])
        self._place = end
        return text

    def rows(self, fields: Fields) -> Rows:
        """Passes an array and gives its columns."""
        places, regular, columns = ([], []), bytearray(), []
        wanted = tuple((name, int(kind)) for name, kind in fields.items())
        while True:
            read = _json_rows.rows(self._data, self._place, self._end, wanted)
            passed, ended, starts, ends, fits, parts = read
            for kept, found in zip(places, (starts, ends)):
                kept.append(np.frombuffer(found, np.int64) + (self._start + self._place))
            regular += fits
            _grow(columns, parts)
            self._place += passed
            if ended:
                break
            self._more()
        return Rows(
            file=self._file,
            starts=np.concatenate(places[0]),
            ends=np.concatenate(places[1]),
            regular=np.frombuffer(regular, bool),
            given={name: np.frombuffer(column[0], bool) for name, column in zip(fields, columns)},
            values={name: _values(kind, column) for (name, kind), column in zip(fields.items(), columns)},
        )

    def at_end(self) -> bool:
        """Whether nothing but space follows, of what is at hand."""
        return not self._data[self._place : self._end].strip(b" \t\r\n") and not self._stream.read(1)

    def _more(self) -> None:
        kept = self._end - self._place
        self._data[:kept] = self._data[self._place : self._end]
        if kept + BLOCK >= len(self._data):
            # A long value: twice the room, so that it is not begun too often.
            self._data.extend(bytes(len(self._data)))
        read = self._stream.readinto(memoryview(self._data)[kept:-1])
        if not read:
            raise ValueError
        self._start += self._place
        self._place, self._end = 0, kept + read
        self._data[self._end] = 0


def _grow(columns: list[Any], parts: tuple) -> None:
    """Appends to every column its part of a block."""
    for place, part in enumerate(parts):
        nested = isinstance(part, tuple)
        if place == len(columns):
            columns.append([] if nested else bytearray())
        if nested:
            _grow(columns[place], part)
        else:
            columns[place] += part


def _values(kind: Kind, column: list[Any]) -> Any:
    """The native bytes of a column as what ``Rows`` says; the arrays are views of them."""
    if kind in (Kind.WHOLE, Kind.FLAG):
        return np.frombuffer(column[1], np.int64)
    if kind == Kind.NUMBER:
        return np.frombuffer(column[1], np.float64)
    if kind == Kind.BOX:
        return np.frombuffer(column[1], np.float64).reshape(-1, 4)
    if kind == Kind.TEXT:
        return Texts(np.frombuffer(column[2], np.uint8), _offsets(column[1]))
    kinds, polygons, points, coordinates, extents, sizes, lengths, runs = column[1]
    segments = Segments(
        rows=np.arange(len(kinds)),
        kinds=np.frombuffer(kinds, np.uint8),
        polygon_offsets=_offsets(polygons),
        point_offsets=_offsets(points),
        coordinates=np.frombuffer(coordinates, np.float64),
        rle_offsets=_offsets(lengths),
        rle_bytes=np.frombuffer(runs, np.uint8),
    )
    by_row = np.frombuffer(extents, np.float64).reshape(-1, 4), np.frombuffer(sizes, np.int64).reshape(-1, 2)
    return Masks(segments, *by_row)


def _offsets(lengths: bytearray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.frombuffer(lengths, np.int64))]).astype(np.int64)
