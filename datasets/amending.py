"""Changes of annotations as a file: what, where, why, by whom. They are applied while reading; no original is touched.

    {"format": "sdk amendments", "version": 1, "fingerprint": "<of the annotations that they apply to>", "changes": [
        {"operation": "relabel", "image_id": 7, "annotation_id": 12, "class": "cat", "author": "...", "time": "...",
         "reason": "..."},
        {"operation": "move", "annotation_id": 12, "box": [x1, y1, x2, y2], "mask": "fit"},
        {"operation": "add", "image_id": 7, "class": "cat", "box": [x1, y1, x2, y2]},
        {"operation": "remove", "annotation_id": 13},
        {"operation": "ignore", "annotation_id": 14},
        {"operation": "rename_class", "class": "kat", "to": "cat"},
        {"operation": "merge_class", "class": "kitten", "to": "cat"},
        {"operation": "transform", "image_id": 7, "scale": [1, 1], "shift": [-20, 0]}]}

Boxes are xyxy pixels, x2 and y2 exclusive ends. Changes apply in the order given: a later one sees what earlier ones
did.
"""

from __future__ import annotations

import getpass
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from . import masks as mask_codec
from .errors import DatasetError
from .index import POLYGONS, RLE, Annotations, Builder, Index, Ragged, insert

FORMAT, VERSION = "sdk amendments", 1
REQUIRED = {
    "relabel": ("annotation_id", "class_name"),
    "move": ("annotation_id", "box"),
    "remove": ("annotation_id",),
    "add": ("image_id", "class_name", "box"),
    "ignore": ("annotation_id",),
    "rename_class": ("class_name", "to"),
    "merge_class": ("class_name", "to"),
    "transform": ("image_id", "scale", "shift"),
}
"""Operations with the fields that each needs."""


@dataclass(frozen=True)
class Change:
    """One fix of the annotations.

    operation: a key of ``REQUIRED``. image_id, annotation_id: where; both where both are known, so that a change that
    was meant for another image is noticed. class_name: the new class, or the one that is renamed or merged, ``to``
    being its new name or the class that it is merged into. box: (x1, y1, x2, y2) pixels. mask: of an annotation with a
    mask that is moved: ``fit`` scales the mask with its box, ``drop`` takes it away; without it the change is refused.
    scale, shift: ``x * scale + shift``, in x and y, for all boxes and masks of an image.
    author, time (ISO 8601), reason: for those who read it later.
    """

    operation: str
    image_id: Any = None
    annotation_id: Any = None
    class_name: str | None = None
    to: str | None = None
    box: tuple[float, float, float, float] | None = None
    mask: str | None = None
    scale: tuple[float, float] | None = None
    shift: tuple[float, float] | None = None
    author: str | None = None
    time: str | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the file: without what is not said, and with ``class`` for the class."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return {"class" if key == "class_name" else key: value for key, value in said.items()}


@dataclass(frozen=True)
class Amendments:
    """Changes in their order, and the fingerprint of the annotations that they apply to."""

    fingerprint: str
    changes: tuple[Change, ...]

    def __len__(self) -> int:
        return len(self.changes)

    def to_dict(self) -> dict[str, Any]:
        """The content of the file."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "changes": [change.to_dict() for change in self.changes],
        }

    def save(self, file: str | os.PathLike) -> Path:
        """Writes the file, one change a line; changes without author and time get the user's name and the present.

        Raises FileExistsError where the file is there: a record of what was changed is never replaced.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        changes = [replace(c, author=c.author or getpass.getuser(), time=c.time or now) for c in self.changes]
        about = {**self.to_dict(), "changes": 0}
        lines = ",\n".join(json.dumps(change.to_dict(), ensure_ascii=False) for change in changes)
        head = json.dumps(about, ensure_ascii=False)[: -len("0}")]
        path = Path(file)
        with open(path, "x", encoding="utf-8") as stream:
            stream.write(f"{head}[\n{lines}\n]}}\n")
        return path


def read_amendments(file: str | os.PathLike) -> Amendments:
    """Reads and checks a file of changes. Raises DatasetError naming file, change and field."""
    path = Path(file)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", file=path) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"not a JSON file ({error})", file=path) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DatasetError("not a file of amendments", file=path, field="format", found=found, expected=repr(FORMAT))
    if content.get("version") != VERSION:
        raise DatasetError(
            "version is not known", file=path, field="version", found=content.get("version"), expected=VERSION
        )
    for field, kind in (("fingerprint", str), ("changes", list)):
        if not isinstance(content.get(field), kind):
            raise DatasetError(
                "field is missing or of another kind", file=path, field=field, found=content.get(field), expected=kind
            )
    return Amendments(
        content["fingerprint"], tuple(_read_change(entry, i, path) for i, entry in enumerate(content["changes"]))
    )


def _read_change(entry: Any, number: int, path: Path) -> Change:
    where = f"changes[{number}]"
    if not isinstance(entry, dict):
        raise DatasetError("not a change", file=path, where=where, found=entry, expected="an object")
    given = {"class_name" if key == "class" else key: value for key, value in entry.items()}
    unknown = sorted(set(given) - set(Change.__dataclass_fields__))
    if unknown:
        raise DatasetError("field is not known", file=path, where=where, field=unknown[0], found=entry[unknown[0]])
    if "operation" not in given:
        raise DatasetError("field is missing", file=path, where=where, field="operation", expected=", ".join(REQUIRED))
    try:
        change = Change(**given)
        _check(change, number)
    except DatasetError as error:
        raise DatasetError(
            error.problem, file=path, where=where, field=error.field, found=error.found, expected=error.expected
        ) from None
    numbers = {
        field: tuple(map(float, value)) for field in ("box", "scale", "shift") if (value := getattr(change, field))
    }
    return replace(change, **numbers)


def _check(change: Change, number: int) -> None:
    where = f"change {number}"
    if change.operation not in REQUIRED:
        raise DatasetError(
            "operation is not known", where=where, field="operation", found=change.operation,
            expected=", ".join(REQUIRED),
        )  # fmt: skip
    for field in REQUIRED[change.operation]:
        if getattr(change, field) is None:
            name = "class" if field == "class_name" else field
            raise DatasetError(f"{change.operation} lacks a field", where=where, field=name, expected="to be given")
    for field in ("class_name", "to"):
        value = getattr(change, field)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise DatasetError("not a class name", where=where, field=field, found=value, expected="text")
    if change.mask not in (None, "fit", "drop"):
        raise DatasetError("not known", where=where, field="mask", found=change.mask, expected="'fit' or 'drop'")
    for field in ("scale", "shift"):
        value = getattr(change, field)
        if value is not None and not (_are_numbers(value, 2) and (field == "shift" or min(value) > 0)):
            raise DatasetError(
                "not two numbers", where=where, field=field, found=value, expected="x, y; scales above 0"
            )
    box = change.box
    if box is not None and not (_are_numbers(box, 4) and box[2] > box[0] and box[3] > box[1]):
        raise DatasetError("not a box", where=where, field="box", found=box, expected="x1, y1, x2, y2, rising")


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list | tuple) or len(values) != count:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def amendment_note(applied: dict[str, Any]) -> str:
    """One line of what was applied, for those who read a score; ``applied``: an entry of a dataset's ``amendments``."""
    by = f" by {', '.join(applied['authors'])}" if applied["authors"] else ""
    return f"scored with {applied['changes']} changes of the annotations{by} ({applied['file'] or 'not from a file'})"


def apply_changes(
    columns: Annotations,
    classes: Sequence[str],
    category_ids: Sequence[int],
    changes: Sequence[Change],
    file: Path | None = None,
) -> Index:
    """New columns with the changes applied in the order given; the given ones stay as they are.

    Raises DatasetError naming file, change and field where one cannot be applied.
    """
    editor = _Editor(columns, classes, category_ids, file)
    for number, change in enumerate(changes):
        editor.apply(change, number)
    return editor.finish()


@dataclass(eq=False)
class _Entry:
    """An annotation that is changed or added. row: (image, place) that it keeps in the file's order. slot: of its class
    in the editor. stated: the box as the file says it, none once the box was moved."""

    annotation_id: Any
    row: tuple[int, int]
    slot: int
    box: np.ndarray
    stated: np.ndarray | None = None
    area: float = 0.0
    ignore: bool = False
    crowd: bool = False
    usable: bool = True
    polygons: list[np.ndarray] | None = None
    counts: bytes | None = None


class _Editor:
    """Applies changes one after the other. Annotations that none names stay columns; the others become entries."""

    def __init__(
        self, columns: Annotations, classes: Sequence[str], category_ids: Sequence[int], file: Path | None
    ) -> None:
        self.columns, self.category_ids, self.file = columns, tuple(category_ids), file
        # Classes keep their slot; what was merged points at the slot of the other.
        self.names: list[str] = list(classes)
        self.merged = list(range(len(classes)))
        self.images = {str(i): image for image, i in enumerate(columns.image_ids.tolist())}
        self.image_of = columns.image_of()
        self.touched: dict[int, _Entry] = {}
        self.added: list[_Entry] = []
        self.gone: set[int] = set()
        self.entries: dict[str, list[int | _Entry]] = {}
        for row, annotation in enumerate(columns.annotation_ids.tolist()):
            self.entries.setdefault(str(annotation), []).append(row)

    def apply(self, change: Change, number: int) -> None:
        """Apply one change. Raises DatasetError where it cannot be."""
        where = f"changes[{number}] ({change.operation})"
        try:
            _check(change, number)
            getattr(self, f"_{change.operation}")(change)
        except DatasetError as error:
            raise DatasetError(
                error.problem, file=self.file, where=where, field=error.field, found=error.found,
                expected=error.expected,
            ) from None  # fmt: skip

    def _relabel(self, change: Change) -> None:
        self._entry(change).slot = self._slot(change.class_name, "class")

    def _ignore(self, change: Change) -> None:
        self._entry(change).ignore = True

    def _remove(self, change: Change) -> None:
        entry = self._entry(change)
        self.entries[str(change.annotation_id)].remove(entry)
        if entry in self.added:
            self.added.remove(entry)
        else:
            row = next(row for row, touched in self.touched.items() if touched is entry)
            self.gone.add(row)
            del self.touched[row]

    def _move(self, change: Change) -> None:
        entry = self._entry(change)
        self._move_to(entry, self._box(change, entry.row[0]), change.mask)

    def _transform(self, change: Change) -> None:
        image = self._image(change.image_id)
        rows = self.columns.rows(image)
        for row in range(rows.start, rows.stop):
            if row not in self.touched and row not in self.gone:
                self._touch(row)
        scale, shift = np.tile(np.array(change.scale), 2), np.tile(np.array(change.shift), 2)
        for entry in [*self.touched.values(), *self.added]:
            if entry.row[0] == image:
                self._move_to(entry, entry.box * scale + shift, "fit")

    def _move_to(self, entry: _Entry, box: np.ndarray, mask: str | None) -> None:
        if entry.polygons or entry.counts is not None:
            self._move_mask(entry, box, mask)
        else:
            entry.area = float(np.prod(box[2:] - box[:2]))
        entry.box, entry.stated, entry.usable = box, None, True

    def _move_mask(self, entry: _Entry, box: np.ndarray, how: str | None) -> None:
        if how is None:
            raise DatasetError(
                "the annotation has a mask, which would not fit its box any more", field="mask",
                expected="'fit' to scale the mask with its box, or 'drop' to take it away",
            )  # fmt: skip
        if how == "drop":
            entry.polygons, entry.counts, entry.area = None, None, float(np.prod(box[2:] - box[:2]))
            return
        scale = (box[2:] - box[:2]) / np.maximum(entry.box[2:] - entry.box[:2], 1e-9)
        shift = box[:2] - entry.box[:2] * scale
        h, w = (int(v) for v in self.columns.image_sizes[entry.row[0]])
        entry.area *= float(scale.prod())
        if entry.counts is not None:
            mask = mask_codec.decode({"size": [h, w], "counts": entry.counts})
            moved = cv2.warpAffine(mask, np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]]), (w, h), flags=0)
            entry.counts = mask_codec.encode(moved)["counts"]
        else:
            entry.polygons = [polygon * scale + shift for polygon in entry.polygons or ()]

    def _add(self, change: Change) -> None:
        image = self._image(change.image_id)
        annotation = self._new_id() if change.annotation_id is None else change.annotation_id
        if self.entries.get(str(annotation)):
            raise DatasetError("there is an annotation of this id", field="annotation_id", found=annotation)
        box = self._box(change, image)
        entry = _Entry(
            annotation,
            (image, len(self.columns) + len(self.added)),
            self._slot(change.class_name, "class"),
            box,
            area=float(np.prod(box[2:] - box[:2])),
        )
        self.added.append(entry)
        self.entries[str(annotation)] = [entry]

    def _rename_class(self, change: Change) -> None:
        slot = self._slot(change.class_name, "class")
        if change.to in self.classes:
            raise DatasetError(
                "there is a class of this name", field="to", found=change.to, expected="a new name, or merge_class"
            )
        self.names[slot] = str(change.to)

    def _merge_class(self, change: Change) -> None:
        source, target = self._slot(change.class_name, "class"), self._slot(change.to, "to")
        if source == target:
            raise DatasetError("a class is merged into itself", field="to", found=change.to)
        self.merged = [target if slot == source else slot for slot in self.merged]

    @property
    def slots(self) -> list[int]:
        """Slots of the classes that are still there, in label order."""
        return sorted(set(self.merged))

    @property
    def classes(self) -> list[str]:
        """Names of the classes that are still there, in label order."""
        return [self.names[slot] for slot in self.slots]

    def _slot(self, name: str | None, field: str) -> int:
        for slot in self.slots:
            if self.names[slot] == name:
                return slot
        raise DatasetError("no such class", field=field, found=name, expected=", ".join(self.classes))

    def _image(self, image_id: Any) -> int:
        if str(image_id) not in self.images:
            raise DatasetError("no such image", field="image_id", found=image_id)
        return self.images[str(image_id)]

    def _box(self, change: Change, image: int) -> np.ndarray:
        box = np.asarray(change.box, np.float64)
        h, w = (int(v) for v in self.columns.image_sizes[image])
        if h and (box[0] >= w or box[1] >= h or box[2] <= 0 or box[3] <= 0):
            raise DatasetError("box lies outside its image", field="box", found=change.box, expected=f"{w} x {h}")
        return box

    def _new_id(self) -> Any:
        ids = self.columns.annotation_ids
        if ids.dtype.kind in "iu":
            highest = int(ids.max(initial=0))
            return max([highest, *(e.annotation_id for e in self.added if isinstance(e.annotation_id, int))]) + 1
        number = len(self.added) + 1
        while self.entries.get(f"added {number}"):
            number += 1
        return f"added {number}"

    def _entry(self, change: Change) -> _Entry:
        """The annotation that a change names, as an entry."""
        found = self.entries.get(str(change.annotation_id), [])
        if change.image_id is not None:
            image = self._image(change.image_id)
            found = [e for e in found if (e.row[0] if isinstance(e, _Entry) else self.image_of[e]) == image]
        if len(found) != 1:
            problem = "no such annotation" if not found else f"{len(found)} annotations have this id"
            raise DatasetError(
                problem + ("" if change.image_id is None else f" in image {change.image_id}"),
                field="annotation_id", found=change.annotation_id,
            )  # fmt: skip
        return found[0] if isinstance(found[0], _Entry) else self._touch(found[0])

    def _touch(self, row: int) -> _Entry:
        """The annotation of a row, from now on as an entry."""
        columns, segments = self.columns, self.columns.segments
        kind = None if segments is None else segments.kind(row)
        self.touched[row] = _Entry(
            annotation_id=columns.annotation_ids[row].item(),
            row=(int(self.image_of[row]), row),
            slot=self.merged[columns.labels[row]],
            box=np.array(columns.boxes[row]),
            stated=np.array(columns.stated_boxes[row]),
            area=float(columns.areas[row]),
            ignore=bool(columns.ignore[row]),
            crowd=bool(columns.crowd[row]),
            usable=bool(columns.usable[row]),
            polygons=segments.polygons(row) if segments is not None and kind == POLYGONS else None,
            counts=segments.counts(row) if segments is not None and kind == RLE else None,
        )
        same_id = self.entries[str(self.touched[row].annotation_id)]
        same_id[same_id.index(row)] = self.touched[row]
        return self.touched[row]

    def finish(self) -> Index:
        """The columns with all changes."""
        columns = self.columns
        labels = np.array([self.slots.index(slot) for slot in self.merged], np.int64)
        entries = sorted([*self.touched.values(), *self.added], key=lambda entry: entry.row)
        builder = Builder()
        for image, size in enumerate(columns.image_sizes.tolist()):
            builder.image(image, tuple(size), "")
        for entry in entries:
            builder.annotation(
                entry.annotation_id,
                entry.row[0],
                box=entry.box,
                stated=_stated(entry.box, columns.box_format) if entry.stated is None else entry.stated,
                label=self.slots.index(self.merged[entry.slot]),
                area=entry.area,
                ignore=entry.ignore,
                crowd=entry.crowd,
                polygons=None
                if entry.polygons is None
                else [polygon.reshape(-1).tolist() for polygon in entry.polygons],
                counts=entry.counts,
            )
        changed = builder.finish(box_format=columns.box_format, masks=columns.segments is not None)
        usable = np.array([entry.usable for entry in entries], bool) & changed.usable
        kept = np.ones(len(columns), bool)
        kept[[*self.touched, *self.gone]] = False
        result = insert(
            merge_labels(columns.keep(kept), labels), np.flatnonzero(kept), replace(changed, usable=usable),
            np.array([entry.row[1] for entry in entries], np.int64),
        )  # fmt: skip
        return Index(
            annotations=result,
            classes=tuple(self.classes),
            category_ids=tuple(self.category_ids[slot] for slot in self.slots),
        )


def _stated(box: np.ndarray, box_format: str) -> np.ndarray:
    """A box of xyxy pixels in the file's own convention."""
    if box_format == "voc":
        return box + np.array([1, 1, 0, 0])
    return np.concatenate([box[:2], box[2:] - box[:2]])


def merge_labels(columns: Annotations, labels: np.ndarray) -> Annotations:
    """The columns with label k written as ``labels[k]``, where several may become one.

    A class made of several is verified as absent where all of them are, and is not fully annotated where any is not.
    """
    count = int(labels.max(initial=-1)) + 1
    if len(labels) == count:
        return columns
    parts = np.bincount(labels, minlength=count)

    def absent(row: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.bincount(labels[row], minlength=count) == parts)

    negative, partial = columns.neg_labels, columns.not_exhaustive_labels
    first = np.array([np.flatnonzero(labels == k)[0] for k in range(count)])
    return replace(
        columns,
        labels=labels[columns.labels],
        neg_labels=None if negative is None else Ragged.of(absent(negative[i]) for i in range(len(negative))),
        not_exhaustive_labels=None
        if partial is None
        else Ragged.of(np.unique(labels[partial[i]]) for i in range(len(partial))),
        frequencies=None if columns.frequencies is None else columns.frequencies[first],
    )
