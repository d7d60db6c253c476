"""Annotations that are probably wrong, to be accepted or rejected, and the file of changes that comes of it."""

from __future__ import annotations

import csv
import html
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.amending import Amendments, Change
from ..datasets.base import DetectionDataset
from ..datasets.index import columns_of
from ..datasets.reading import read_image
from ..datasets.showing import html_table
from ..errors import SdkError
from ..evaluators.base import Evaluator, shown_in_notebook
from ..evaluators.label_faults import KINDS, Objects, label_faults, moved_images, swapped_classes
from ..reports.drawing import ANNOTATED, CORRECT, Outline
from ..reports.examples import Scene, joined, pictures_of, size_of
from ..reports.page import Page, Picture, Section, write_page
from ..reports.text import table

SYSTEMATIC = ("swapped classes", "moved image")
DECISIONS = ("", "accept", "reject")
COLUMNS = (
    "number", "decision", "kind", "probability", "image_id", "annotation_id", "class", "box", "suggestion", "file"
)  # fmt: skip
HEAD = "# sdk review 1, fingerprint "
LEAST_PROBABILITY = 0.02


@dataclass(frozen=True)
class Suspect:
    """Something that is probably wrong.

    number: its place in the ranking, from 1. kind: ``class``, ``box``, ``spurious``, ``missing`` or ``duplicate``; of
    systematic ones ``swapped classes`` or ``moved image``. annotation_id: none where nothing is annotated.
    class_name: the annotated class, or that of the missing object. box: (x1, y1, x2, y2) pixels, as annotated or as
    detected. probability: 0..1. suggestion: a class name, a box, ``remove`` or ``add``; of swapped classes the other
    class, of a moved image (scale x, scale y, shift x, shift y). file: of the image, where it is known.
    """

    number: int
    kind: str
    probability: float
    image_id: Any
    annotation_id: Any
    class_name: str | None
    box: tuple[float, float, float, float] | None
    suggestion: str | tuple[float, ...]
    file: str | None = None

    def changes(self) -> list[Change]:
        """What amends it."""
        reason = f"{self.kind}, probability {self.probability:.2f}, by sdk review"
        at = {"image_id": self.image_id, "annotation_id": self.annotation_id, "reason": reason}
        if self.kind == "class":
            return [Change("relabel", class_name=str(self.suggestion), **at)]
        if self.kind == "box":
            return [Change("move", box=self.suggestion, mask="fit", **at)]  # type: ignore[arg-type]
        if self.kind == "missing":
            return [Change("add", self.image_id, class_name=self.class_name, box=self.box, reason=reason)]
        if self.kind == "moved image":
            numbers: Any = self.suggestion
            return [Change("transform", self.image_id, scale=numbers[:2], shift=numbers[2:], reason=reason)]
        if self.kind == "swapped classes":
            a, b = str(self.class_name), str(self.suggestion)
            aside = f"{a} (being swapped)"
            names = ((a, aside), (b, a), (aside, b))
            return [Change("rename_class", class_name=old, to=new, reason=reason) for old, new in names]
        return [Change("remove", **at)]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"class" if key == "class_name" else key: value for key, value in vars(self).items()}


@dataclass
class Review:
    """What is to be looked at, the most probable fault first, and what was decided.

    fingerprint: of the annotations that were reviewed. suspects: single annotations and missing objects. systematic:
    faults of all objects of two classes, or of an image; what they explain is not among the suspects. notes: what a
    reader must know. decisions: number of a suspect to ``accept`` or ``reject``.
    """

    fingerprint: str
    suspects: list[Suspect]
    systematic: list[Suspect] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    decisions: dict[int, str] = field(default_factory=dict)

    @property
    def entries(self) -> list[Suspect]:
        """Systematic faults, then the others."""
        return [*self.systematic, *self.suspects]

    def accept(self, suspects: Iterable[int | Suspect] | int | Suspect) -> None:
        """Takes the suggestions of these suspects or numbers. Raises SdkError for a number that there is not."""
        self._decide(suspects, "accept")

    def reject(self, suspects: Iterable[int | Suspect] | int | Suspect) -> None:
        """Leaves these annotations as they are."""
        self._decide(suspects, "reject")

    def _decide(self, suspects: Iterable[int | Suspect] | int | Suspect, decision: str) -> None:
        given = [suspects] if isinstance(suspects, int | Suspect) else list(suspects)
        known = {suspect.number for suspect in self.entries}
        for one in given:
            number = one.number if isinstance(one, Suspect) else one
            if number not in known:
                raise SdkError(f"no suspect of number {number!r}; expected 1 to {len(known)}")
            self.decisions[number] = decision

    @property
    def accepted(self) -> list[Suspect]:
        """Those whose suggestion was accepted."""
        return [suspect for suspect in self.entries if self.decisions.get(suspect.number) == "accept"]

    def amendments(self, author: str | None = None) -> Amendments:
        """The accepted suggestions as changes: single ones first, then those of whole images and classes.

        Where both removing and changing an annotation was accepted, the likelier of the two is done.
        """
        ordered = sorted(self.accepted, key=lambda suspect: (suspect.kind in SYSTEMATIC, -suspect.probability))
        kept: list[Suspect] = []
        removed: dict[Any, bool] = {}
        for suspect in ordered:
            place, remove = (suspect.image_id, suspect.annotation_id), suspect.suggestion == "remove"
            if suspect.annotation_id is None or place not in removed or not (remove or removed[place]):
                kept.append(suspect)
            removed.setdefault(place, remove)
        changes = [replace(change, author=author) for suspect in kept for change in suspect.changes()]
        return Amendments(self.fingerprint, tuple(changes))

    def save(self, file: str | os.PathLike) -> Path:
        """Writes the queue, a CSV file whose decisions (``accept``, ``reject`` or nothing) and suggestions may be
        edited and read back with ``Review.read``. Raises FileExistsError rather than replacing decisions."""
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8", newline="") as stream:
            stream.write(f"{HEAD}{self.fingerprint}\n")
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for suspect in self.entries:
                row = {**suspect.to_dict(), "decision": self.decisions.get(suspect.number, "")}
                row |= {"probability": f"{suspect.probability:.4f}", "image_id": json.dumps(suspect.image_id)}
                row["annotation_id"] = "" if suspect.annotation_id is None else json.dumps(suspect.annotation_id)
                writer.writerow([_text(row[name]) for name in COLUMNS])
        return path

    @staticmethod
    def read(file: str | os.PathLike) -> Review:
        """The review of a queue file, with the decisions in it. Raises SdkError naming file, line and field."""
        path = Path(file)
        if not path.is_file():
            raise SdkError(f"{path}: no such file")
        with open(path, encoding="utf-8-sig", newline="") as stream:
            head = stream.readline().strip().strip(',"')
            if not head.startswith(HEAD):
                raise SdkError(f"{path}, line 1: not a queue of sdk review; expected {HEAD!r} and the fingerprint")
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise SdkError(f"{path}, line 2: columns {', '.join(missing)} are missing")
            review = Review(head.removeprefix(HEAD), [])
            for row in reader:
                suspect, decision = _read_row(row, f"{path}, line {reader.line_num + 1}")
                (review.systematic if suspect.kind in SYSTEMATIC else review.suspects).append(suspect)
                if decision:
                    review.decisions[suspect.number] = decision
        return review

    def page(self, path: str | os.PathLike, most: int = 300) -> Path:
        """Writes an HTML page with the suspects, the ``most`` probable ones as crops beside the suggestion: white is
        what is annotated, green what is suggested. Images that cannot be read have no crop."""
        counts = [("kind", "suspects"), *((kind, str(count)) for kind, count in self.counts().items())]
        rows: list[Sequence[str]] = [COLUMNS[:-1]]
        for suspect in self.entries[:most]:
            said = {**suspect.to_dict(), "decision": self.decisions.get(suspect.number, "")}
            said["probability"] = f"{suspect.probability:.2f}"
            rows.append([_text(said[name]) for name in COLUMNS[:-1]])
        sections = [
            Section("Counts", counts),
            Section("Crops", pictures=self.pictures(most)),
            Section("Suspects", rows),
        ]
        lead = (
            f"{len(self)} suspects, the {min(most, len(self))} likeliest are shown",
            "white: annotated, green: suggested",
        )
        return write_page(Page("Annotations that are probably wrong", lead, sections, self.notes), Path(path))

    def pictures(self, most: int) -> list[Picture]:
        """Crops of the ``most`` likeliest entries beside the suggestion; images that cannot be read have none."""
        files = list(dict.fromkeys(s.file for s in self.entries[:most] if s.file is not None))
        scenes = [_scene(s, files.index(s.file)) for s in self.entries[:most] if s.file is not None]
        return pictures_of(
            lambda image: read_image(Path(files[image])), [scene for scene in scenes if scene is not None]
        )

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>note: {html.escape(note)}</p>" for note in self.notes)
        return f"<p>{html.escape(repr(self))}</p>{html_table(self._cells(SHOWN))}{notes}"

    def show(self) -> None:
        """Shows the review: as a table in a notebook, else as text."""
        if not shown_in_notebook(self):
            print(self)

    def to_dict(self) -> dict[str, Any]:
        """The review as plain values."""
        rows = [{**s.to_dict(), "decision": self.decisions.get(s.number, "")} for s in self.entries]
        return {"fingerprint": self.fingerprint, "suspects": rows, "notes": list(self.notes)}

    def to_pandas(self) -> Any:
        """One row a suspect; needs pandas."""
        import pandas

        return pandas.DataFrame(self.to_dict()["suspects"])

    def counts(self) -> dict[str, int]:
        """Number of suspects by kind, and how many of them are likelier wrong than right."""
        return {kind: sum(s.kind == kind for s in self.entries) for kind in (*SYSTEMATIC, *KINDS)}

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.counts().items() if count)
        return f"Review({len(self)} suspects{': ' + counts if counts else ''}; {len(self.accepted)} accepted)"

    def _cells(self, most: int) -> list[tuple[str, ...]]:
        rows = [("number", "kind", "probability", "image", "annotation", "class", "suggestion")]
        for s in self.entries[:most]:
            rows.append((str(s.number), s.kind, f"{s.probability:.2f}", str(s.image_id), _text(s.annotation_id),
                         _text(s.class_name), _text(s.suggestion)))  # fmt: skip
        return rows

    def __str__(self) -> str:
        more = [f"{len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return "\n".join([repr(self), "", *table(self._cells(SHOWN)), *more, *(f"note: {note}" for note in self.notes)])


SHOWN = 30
"""Suspects in a printed table."""


def _scene(suspect: Suspect, image: int) -> Scene | None:
    """The surroundings of a suspect; none where it has no box."""
    if suspect.box is None:
        return None
    outlines = [Outline(suspect.box, CORRECT if suspect.kind == "missing" else ANNOTATED)]
    around = suspect.box
    if suspect.kind == "box":
        suggested: Any = suspect.suggestion
        outlines.append(Outline(suggested, CORRECT))
        around = joined(around, suggested)
    at = f"{suspect.image_id}" if suspect.annotation_id is None else f"{suspect.image_id}, {suspect.annotation_id}"
    advice = "another box" if suspect.kind == "box" else suspect.suggestion
    caption = f"{suspect.number}: {suspect.kind} {suspect.probability:.2f}, {suspect.class_name}: {advice} ({at})"
    x1, y1, x2, y2 = suspect.box
    marks: dict[str, str | float | list[str]] = {
        "kind": suspect.kind, "class": suspect.class_name or "", "probability": round(suspect.probability, 4),
        "size": size_of(max(x2 - x1, 0.0) * max(y2 - y1, 0.0)),
    }  # fmt: skip
    return Scene(image, caption, [outlines], around, marks)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return (
        " ".join(f"{v:.1f}" if abs(v) >= 10 else f"{v:.4g}" for v in value) if isinstance(value, tuple) else str(value)
    )


def _read_row(row: dict[str, Any], where: str) -> tuple[Suspect, str]:
    decision = (row["decision"] or "").strip().lower()
    if decision not in DECISIONS:
        raise SdkError(f"{where}: decision: found {decision!r}; expected accept, reject or nothing")
    kind = row["kind"]
    if kind not in (*KINDS, *SYSTEMATIC):
        raise SdkError(f"{where}: kind: found {kind!r}; expected {', '.join((*KINDS, *SYSTEMATIC))}")
    text = row["suggestion"].strip()
    suggestion = _numbers(text, f"{where}: suggestion") if kind in ("box", "moved image") else text
    try:
        number, probability = int(row["number"]), float(row["probability"])
        image_id = json.loads(row["image_id"]) if row["image_id"] else None
        annotation_id = json.loads(row["annotation_id"]) if row["annotation_id"] else None
    except ValueError as error:
        raise SdkError(f"{where}: number, probability, image_id or annotation_id was changed ({error})") from None
    box: Any = _numbers(row["box"], f"{where}: box") if row["box"] else None
    suspect = Suspect(
        number, kind, probability, image_id, annotation_id, row["class"] or None, box, suggestion, row["file"] or None
    )
    return suspect, decision


def _numbers(text: str, where: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise SdkError(f"{where}: found {text!r}; expected four numbers")
    return numbers


def review_of(dataset: DetectionDataset, evaluator: Evaluator, notes: Sequence[str] = ()) -> Review:
    """Reviews the annotations of a dataset by the detections that an evaluator of it has collected."""
    columns, classes = columns_of(dataset), [str(name) for name in dataset.classes]
    truth = Objects(
        images=columns.image_of(),
        boxes=np.asarray(columns.boxes, np.float64),
        labels=np.asarray(columns.labels),
        scores=np.ones(len(columns)),
        ignore=columns.ignore | ~columns.usable,
    )
    found = _collected(evaluator)
    swapped = swapped_classes(truth, found, len(classes))
    moved = moved_images(truth, found)
    systematic = [
        Suspect(0, "swapped classes", share, None, None, classes[a], None, classes[b]) for a, b, share in swapped
    ]
    image_ids, annotation_ids = columns.image_ids.tolist(), columns.annotation_ids.tolist()

    def file(image: int) -> str | None:
        return dataset.info(image).path

    for m in moved:
        probability = m.after / (m.before + m.after)
        at = image_ids[m.image]
        numbers = (*m.scale, *m.shift)
        systematic.append(Suspect(0, "moved image", probability, at, None, None, None, numbers, file(m.image)))

    # What is systematic is set right before single objects are judged.
    boxes, labels = truth.boxes.copy(), truth.labels.copy()
    for a, b, _ in swapped:
        labels = np.where(truth.labels == a, b, np.where(truth.labels == b, a, labels))
    explained = np.isin(truth.images, [m.image for m in moved])
    truth = Objects(truth.images, boxes, labels, truth.scores, truth.ignore | explained)
    faults = label_faults(truth, found, len(classes))
    singles = []
    for kind in KINDS:
        for row in faults.of_kind(kind, LEAST_PROBABILITY).tolist():
            image, probability = int(truth.images[row]), float(faults.probability[KINDS.index(kind), row])
            suggestion: str | tuple[float, ...] = "remove"
            if kind == "class":
                suggestion = classes[faults.label[row]]
            elif kind == "box":
                suggestion = _box(found.boxes[faults.detection[row]])
            singles.append(
                Suspect(0, kind, probability, image_ids[image], annotation_ids[row],
                        classes[columns.labels[row]], _box(columns.boxes[row]), suggestion, file(image))
            )  # fmt: skip
    for d in np.flatnonzero(faults.missing >= LEAST_PROBABILITY):
        image = int(found.images[d])
        if image in {m.image for m in moved}:
            continue
        singles.append(
            Suspect(0, "missing", float(faults.missing[d]), image_ids[image], None, classes[found.labels[d]],
                    _box(found.boxes[d]), "add", file(image))
        )  # fmt: skip
    singles.sort(key=lambda suspect: -suspect.probability)
    numbered = [replace(suspect, number=number) for number, suspect in enumerate([*systematic, *singles], 1)]
    return Review(dataset.fingerprint, numbered[len(systematic) :], numbered[: len(systematic)], tuple(notes))


def _box(values: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in values)
    return x1, y1, x2, y2


def _collected(evaluator: Any) -> Objects:
    """The detections that an evaluator holds."""
    state = evaluator.state()
    boxes = np.asarray(state["box"], np.float64)
    count = len(boxes)
    return Objects(
        images=np.asarray(state["image"], np.int64),
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        labels=np.asarray(state["label"], np.int64),
        scores=np.asarray(state["score"], np.float64),
        ignore=np.zeros(count, bool),
    )
