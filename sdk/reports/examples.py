"""Pictures chosen for what they show: the worst images, confident false detections, misses, and confusions by pair.

Everything is read from the table of matched detections; an image is decoded once for all that it shows, and images that
cannot be read are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..datasets.errors import DatasetError
from ..evaluators.analysis import ERRORS, Compared, ConfusionMatrix, ErrorBreakdown
from ..evaluators.confidence import best_cut, counts_by_image, f1_of
from ..evaluators.matching import COCO_AREAS
from .drawing import ANNOTATED, CORRECT, WRONG, Outline, crop, shrunk
from .page import Picture

WORST_IMAGES = 12
PER_ERROR = 10
"""False detections of each kind of error."""
MISSES = 30
PER_PAIR = 3
PAIRS = 40
"""Pairs of classes of which confusions are shown, the most frequent first."""
PER_IMAGE = 3
"""Pictures of one image in a group, so that one bad image does not fill the page."""
UNREADABLE = 20
"""Images in a row that cannot be read, after which no more are tried: the pictures are not there."""
COLOURS = "White: annotated. Green: right. Red: false, or missed where an object alone is shown."
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """What a picture is to show. image: row of the dataset. views: what is drawn on it, once for each view side by
    side. around: what is cropped, none for the whole image. marks and anchor: see ``Picture``."""

    image: int
    caption: str
    views: Sequence[Sequence[Outline]]
    around: Box | None
    marks: dict[str, str | float | list[str]] = field(default_factory=dict)
    anchor: str = ""


def pictures_of(read: Callable[[int], np.ndarray], scenes: Sequence[Scene]) -> list[Picture]:
    """The scenes that could be drawn, in their order. read: row of an image to its (H, W, 3) uint8 pixels."""
    by_image: dict[int, list[int]] = {}
    for place, scene in enumerate(scenes):
        by_image.setdefault(scene.image, []).append(place)
    drawn: dict[int, Picture] = {}
    failed = 0
    for image, places in by_image.items():
        try:
            pixels = read(image)
        except (DatasetError, OSError):
            failed += 1
            if failed >= UNREADABLE and not drawn:
                break
            continue
        for place in places:
            scene = scenes[place]
            seen = [
                shrunk(pixels, view) if scene.around is None else crop(pixels, scene.around, view)
                for view in scene.views
            ]
            drawn[place] = Picture.of_pixels(scene.caption, np.concatenate(seen, axis=1), scene.marks, scene.anchor)
    return [drawn[place] for place in sorted(drawn)]


def anchor_of(there: int, said: int) -> str:
    """Name of the first picture of a confusion in its page."""
    return f"pair-{there}-{said}"


@dataclass(frozen=True)
class WholeImages:
    """Draws what was found in whole images at the score where F1 of all classes together is best."""

    compared: Compared

    @cached_property
    def cut(self) -> float:
        """That score."""
        return best_cut(self.compared)

    def outlines(self, image: int) -> list[Outline]:
        """What is annotated in an image, and what was found, by colour."""
        matches = self.compared.matches
        rows = np.flatnonzero((matches.found.images == image) & (matches.found.scores >= self.cut) & ~matches.ignored)
        found = (Outline(_ends(matches.found.boxes[d]), CORRECT if matches.true_positive[d] else WRONG) for d in rows)
        return [*annotated(self.compared, image), *found]


def annotated(compared: Compared, image: int) -> list[Outline]:
    """The objects of an image that count."""
    rows = np.flatnonzero((compared.truth_images == image) & ~compared.matches.truth_ignored)
    return [Outline(_ends(compared.truth_boxes[g]), ANNOTATED) for g in rows]


@dataclass(frozen=True)
class Examples:
    """Chooses scenes of one evaluation. classes: names of the labels. image_ids: of the rows of images."""

    compared: Compared
    matrix: ConfusionMatrix
    breakdown: ErrorBreakdown | None
    classes: Sequence[str]
    image_ids: Sequence[object]

    def scenes(self) -> list[Scene]:
        """All of them; the first of each confusion has its anchor."""
        scenes: list[Scene] = []
        anchors: set[str] = set()
        for scene in (*self.worst_images(), *self.false_detections(), *self.misses(), *self.confusions()):
            scenes.append(replace(scene, anchor="") if scene.anchor in anchors else scene)
            anchors.add(scene.anchor)
        return scenes

    def worst_images(self) -> list[Scene]:
        """The images of lowest F1 at the score where that of all classes together is best."""
        true, false, missed = counts_by_image(self.compared)
        f1, whole = f1_of(true, false, missed), WholeImages(self.compared)
        order = np.lexsort((-(false + missed), f1))
        scenes = []
        for image in order[f1[order] < 1][:WORST_IMAGES].tolist():
            caption = (
                f"image {self.image_ids[image]}: F1 {f1[image]:.2f} at a score of {whole.cut:.2f}; "
                f"{true[image]} found, {false[image]} false, {missed[image]} missed"
            )
            scenes.append(Scene(image, caption, [whole.outlines(image)], None))
        return scenes

    def false_detections(self) -> list[Scene]:
        """The most confident ones of each kind of error."""
        if self.breakdown is None:
            return []
        found, kinds = self.compared.matches.found, self.breakdown.kind
        ranking = self.compared.ranking
        scenes = []
        for number in range(len(ERRORS)):
            rows = self._spread(ranking[kinds[ranking] == number].tolist(), found.images, PER_ERROR)
            scenes += [self._of_detection(d, "confident false detections") for d in rows]
        return scenes

    def misses(self) -> list[Scene]:
        """Objects that were not found, those first that are large for their class; classes take turns."""
        compared = self.compared
        missed = np.flatnonzero(compared.matches.missed)
        # The place of each among the missed ones of its class, the largest first.
        order = missed[np.lexsort((-compared.truth_areas[missed], compared.truth_labels[missed]))]
        labels = compared.truth_labels[order]
        turn = np.arange(len(order)) - np.searchsorted(labels, labels)
        rows = order[np.argsort(turn, kind="stable")].tolist()
        chosen = self._spread(rows, compared.truth_images, MISSES)
        return [self._of_truth(g, "missed objects") for g in chosen]

    def confusions(self) -> list[Scene]:
        """Of the most frequent pairs of classes the surest confusions, and the least sure of what is right."""
        found, labels, background = self.compared.matches.found, self.compared.truth_labels, len(self.classes)
        said, there = self.matrix.said, self.matrix.there
        rows = np.where(there >= 0, labels[there] if len(labels) else background, background)
        columns = found.labels[said]
        counts = self.matrix.table.copy()
        np.fill_diagonal(counts, 0)
        pairs = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
        pairs = [divmod(int(p), background + 1) for p in pairs if counts.flat[p]]
        pairs += [(k, k) for k in np.argsort(-np.diag(self.matrix.table), kind="stable")[:PAIRS].tolist()]
        partner = dict(zip(said.tolist(), there.tolist()))
        scenes = []
        for i, j in pairs:
            if j == background:
                own = self.matrix.unseen[labels[self.matrix.unseen] == i]
                own = own[np.argsort(-self.compared.truth_areas[own], kind="stable")].tolist()
                chosen = self._spread(own, self.compared.truth_images, PER_PAIR)
                scenes += [self._of_truth(g, "confusions") for g in chosen]
                continue
            own = said[(rows == i) & (columns == j)]
            scores = found.scores[own] if i == j else -found.scores[own]
            own = own[np.argsort(scores, kind="stable")].tolist()
            show = "right, and least sure" if i == j else "confusions"
            chosen = self._spread(own, found.images, PER_PAIR)
            scenes += [self._of_detection(d, show, partner[d]) for d in chosen]
        return scenes

    def _spread(self, rows: Sequence[int], images: np.ndarray, most: int) -> list[int]:
        """The first rows, at most ``PER_IMAGE`` of an image."""
        chosen: list[int] = []
        seen: dict[int, int] = {}
        for row in rows:
            image = int(images[row])
            seen[image] = seen.get(image, 0) + 1
            if seen[image] <= PER_IMAGE:
                chosen.append(row)
            if len(chosen) == most:
                break
        return chosen

    def _of_detection(self, d: int, show: str, truth: int | None = None) -> Scene:
        found, kinds = self.compared.matches.found, self.breakdown
        kind = -1 if kinds is None else int(kinds.kind[d])
        if truth is None:
            truth = int(kinds.truth[d]) if kinds is not None else -1
        background = len(self.classes)
        said = int(found.labels[d])
        there = background if truth < 0 else int(self.compared.truth_labels[truth])
        image, score, box = int(found.images[d]), float(found.scores[d]), _ends(found.boxes[d])
        error = "none" if kind < 0 else ERRORS[kind]
        about = {
            "duplicate": "found once more",
            "both": "near an object of another class",
            "localization": f"inexactly on an object of class {self._name(said)}",
        }.get(error, f"{self._name(there)} is there" if there < background else "nothing is annotated there")
        caption = f"said {self._name(said)} {score:.2f}; {about} (image {self.image_ids[image]})"
        around = box if truth < 0 else joined(box, _ends(self.compared.truth_boxes[truth]))
        color = CORRECT if there == said and error == "none" else WRONG
        marks = self._marks(show, there, said, error, float(found.areas[d]), score)
        outlines = [*annotated(self.compared, image), Outline(box, color)]
        return Scene(image, caption, [outlines], around, marks, anchor_of(there, said))

    def _of_truth(self, g: int, show: str) -> Scene:
        image, label = int(self.compared.truth_images[g]), int(self.compared.truth_labels[g])
        box = _ends(self.compared.truth_boxes[g])
        caption = f"{self._name(label)} was missed (image {self.image_ids[image]})"
        marks = self._marks(show, label, len(self.classes), "missed", float(self.compared.truth_areas[g]), None)
        outlines = [*annotated(self.compared, image), Outline(box, WRONG)]
        return Scene(image, caption, [outlines], box, marks, anchor_of(label, len(self.classes)))

    def _marks(
        self, show: str, there: int, said: int, error: str, area: float, score: float | None
    ) -> dict[str, str | float | list[str]]:
        names = sorted({self._name(k) for k in (there, said) if k < len(self.classes)})
        marks: dict[str, str | float | list[str]] = {
            "show": show, "class": names, "there": self._name(there), "said": self._name(said), "error": error,
            "size": size_of(area),
        }  # fmt: skip
        return marks if score is None else marks | {"score": round(score, 4)}

    def _name(self, label: int) -> str:
        return str(self.classes[label]) if label < len(self.classes) else "background"


def _ends(box: np.ndarray) -> Box:
    """x, y, width, height as x1, y1, x2, y2."""
    x, y, w, h = box.tolist()
    return x, y, x + w, y + h


def joined(a: Box, b: Box) -> Box:
    """The least box (x1, y1, x2, y2) around both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def size_of(area: float) -> str:
    """COCO's word for an area in pixels."""
    return "small" if area < COCO_AREAS["s"][1] else "medium" if area < COCO_AREAS["m"][1] else "large"
