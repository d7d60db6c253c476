"""What two versions of the annotations of the same images say differently."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..datasets.amending import Amendments, Change
from ..datasets.base import DetectionDataset
from ..datasets.index import Annotations, columns_of
from ..datasets.showing import html_table
from ..errors import SdkError
from ..evaluators.base import shown_in_notebook
from ..evaluators.label_faults import overlaps
from ..reports.text import table

KINDS = ("added", "removed", "moved", "relabelled", "ignored", "counted")
SAME_OBJECT = 0.3
"""Boxes that meet this much, and less than exactly, are one object that was moved."""


@dataclass(frozen=True)
class Row:
    """One difference. kind: see ``KINDS``; an object that was both moved and relabelled has two rows. annotation_id: of
    the first version, or of the second where the object is new. class_name, box: as the first version has them, those
    of the second where the object is new; new_class, new_box: what the second says, where that differs."""

    kind: str
    image_id: Any
    annotation_id: Any
    class_name: str
    box: tuple[float, float, float, float]
    new_class: str | None = None
    new_box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Difference:
    """rows: by image. fingerprint: of the first version. only_first, only_second: ids of images that one version alone
    has, whose annotations are not in the rows. classes: (only in the first, only in the second)."""

    rows: list[Row]
    fingerprint: str
    only_first: list[Any]
    only_second: list[Any]
    classes: tuple[list[str], list[str]]

    def by_class(self) -> dict[str, dict[str, int]]:
        """Class name to the number of differences of each kind; of the first version where the class was changed."""
        counts = Counter((row.class_name, row.kind) for row in self.rows)
        names = sorted({name for name, _ in counts})
        return {name: {kind: counts[name, kind] for kind in KINDS} for name in names}

    def amendments(self) -> Amendments:
        """The changes that make the second version of the first. Raises SdkError where images or classes differ."""
        if self.classes[1]:
            raise SdkError(f"the second version has classes that the first lacks: {', '.join(self.classes[1])}")
        if self.only_first or self.only_second:
            raise SdkError("the versions are of different images, and changes are of annotations alone")
        if any(row.kind == "counted" for row in self.rows):
            raise SdkError("the second version counts objects that the first ignores, for which there is no operation")
        return Amendments(self.fingerprint, tuple(_change(row) for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        rows = [{"class" if k == "class_name" else k: v for k, v in vars(row).items()} for row in self.rows]
        images = {"only_first": self.only_first, "only_second": self.only_second}
        return {"rows": rows, "by_class": self.by_class(), **images, "classes": self.classes}

    def to_pandas(self) -> Any:
        """One row a difference; needs pandas."""
        import pandas

        return pandas.DataFrame(self.to_dict()["rows"])

    def _repr_html_(self) -> str:
        counts = [(name, *(str(of[kind]) for kind in KINDS)) for name, of in self.by_class().items()]
        return f"<p>{html.escape(repr(self))}</p>{html_table([('class', *KINDS), *counts]) if counts else ''}"

    def show(self) -> None:
        """Shows the difference: as a table in a notebook, else as text."""
        if not shown_in_notebook(self):
            print(self)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        counts = Counter(row.kind for row in self.rows)
        told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "nothing"
        return f"Difference({told})"

    def __str__(self) -> str:
        if not (self.rows or self.only_first or self.only_second or any(self.classes)):
            return "the annotations are the same"
        lines = []
        for names, which in zip(self.classes, ("first", "second")):
            if names:
                lines.append(f"classes of the {which} alone: {', '.join(names)}")
        for ids, which in ((self.only_first, "first"), (self.only_second, "second")):
            if ids:
                some = ", ".join(map(str, ids[:5])) + (" ..." if len(ids) > 5 else "")
                lines.append(f"images of the {which} alone: {len(ids)} ({some})")
        head = ("class", *KINDS)
        counts = [(name, *(str(of[kind]) for kind in KINDS)) for name, of in self.by_class().items()]
        return "\n".join([*lines, *(table([head, *counts]) if counts else ["the same annotations on shared images"])])


def _change(row: Row) -> Change:
    at = {"image_id": row.image_id, "annotation_id": row.annotation_id}
    if row.kind == "added":
        return Change("add", row.image_id, class_name=row.class_name, box=row.box)
    if row.kind == "moved":
        return Change("move", box=row.new_box, mask="fit", **at)
    if row.kind == "relabelled":
        return Change("relabel", class_name=row.new_class, **at)
    return Change("remove" if row.kind == "removed" else "ignore", **at)


def difference(a: DetectionDataset, b: DetectionDataset) -> Difference:
    """Compares two versions, a before b, image by image.

    The same box is the same object, whatever its id; what is left belongs together where boxes meet by ``SAME_OBJECT``,
    the best first, objects of the same id or class before others.
    """
    first, second = columns_of(a), columns_of(b)
    places = {str(i): image for image, i in enumerate(second.image_ids.tolist())}
    rows: list[Row] = []
    only_first = []
    for image, image_id in enumerate(first.image_ids.tolist()):
        other = places.pop(str(image_id), None)
        if other is None:
            only_first.append(image_id)
        else:
            rows += _of_image(first, list(a.classes), image, second, list(b.classes), other)
    only_second = [second.image_ids[image].item() for image in places.values()]
    classes = [n for n in a.classes if n not in b.classes], [n for n in b.classes if n not in a.classes]
    return Difference(rows, a.fingerprint, only_first, only_second, classes)


def _of_image(
    first: Annotations, names: list[str], image: int, second: Annotations, other_names: list[str], other: int
) -> list[Row]:
    mine, theirs = (np.arange(c.rows(i).start, c.rows(i).stop) for c, i in ((first, image), (second, other)))
    image_id, rows = first.image_ids[image].item(), []
    partner = _paired(first, names, mine, second, other_names, theirs)
    for row in mine:
        name, box = names[first.labels[row]], _box(first, row)
        about = (image_id, first.annotation_ids[row].item(), name, box)
        new = partner.get(int(row))
        if new is None:
            rows.append(Row("removed", *about))
            continue
        if _box(second, new) != box:
            rows.append(Row("moved", *about, new_box=_box(second, new)))
        if other_names[second.labels[new]] != name:
            rows.append(Row("relabelled", *about, new_class=other_names[second.labels[new]]))
        if bool(first.ignore[row]) != bool(second.ignore[new]):
            rows.append(Row("counted" if first.ignore[row] else "ignored", *about))
    for row in sorted(set(theirs.tolist()) - set(partner.values())):
        name = other_names[second.labels[row]]
        rows.append(Row("added", image_id, second.annotation_ids[row].item(), name, _box(second, row)))
    return rows


def _box(columns: Annotations, row: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(v) for v in columns.boxes[row])
    return x1, y1, x2, y2


def _paired(
    first: Annotations, names: list[str], mine: np.ndarray, second: Annotations, other_names: list[str],
    theirs: np.ndarray,
) -> dict[int, int]:  # fmt: skip
    """Row of the first version to that of the same object in the second."""
    x, y = np.repeat(mine, len(theirs)), np.tile(theirs, len(mine))
    iou = overlaps(first.boxes[x], second.boxes[y])
    equal = (first.boxes[x] == second.boxes[y]).all(1)
    same_class = np.array([names[k] for k in first.labels[x]]) == np.array([other_names[k] for k in second.labels[y]])
    same_id = first.annotation_ids[x].astype(str) == second.annotation_ids[y].astype(str)
    # Equal boxes first; then closeness, to which class and id add less than a clear difference of overlap does.
    worth = 10.0 * equal + iou + 0.2 * same_class + 0.1 * same_id
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for p in np.argsort(-worth, kind="stable"):
        a, b = int(x[p]), int(y[p])
        if (equal[p] or iou[p] >= SAME_OBJECT) and a not in pairs and b not in taken:
            pairs[a] = b
            taken.add(b)
    return pairs
