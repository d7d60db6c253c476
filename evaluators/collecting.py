"""What an evaluator keeps of the detections that it is given: checked, flat and small.

Masks do not stay: each image's masks become run lengths, their overlaps with the image's ground truths are written
down, and the masks are gone. What is left is some 80 bytes a detection.

Shape letters: D detections so far, N detections of one image, M images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pycocotools.mask as coco_mask

from ..datasets.errors import DatasetError
from ..datasets.masks import check_polygons, check_rle, encode_polygons
from .ground_truth import GroundTruth
from .matching import Found, Pairs, concatenate_pairs
from .results_files import Results, read_parquet, read_well_formed

if TYPE_CHECKING:
    import torch

    from ..models.structures import Detections

RLE = dict[str, Any]
T = TypeVar("T")
# Image row, run lengths and areas of its masks -> overlaps; rows of detections are counted within the image.
Overlaps = Callable[[int, list[RLE], np.ndarray], Pairs]

LOWEST_USUAL = 0.06
"""Published detectors are scored with all detections from 0.05 on, or lower."""
_COLUMNS = {
    "image": np.int32,
    "index": np.int32,
    "label": np.int32,
    "score": np.float64,
    "box": np.float64,
    "area": np.float64,
    "mask_score": np.float64,
    "mask_area": np.float64,
}


def encode_masks(masks: torch.Tensor) -> list[RLE]:
    """(N, h, w) bool masks as compressed run lengths."""
    if len(masks) == 0:
        return []
    # pycocotools wants columns first; a transposed view of (N, w, h) memory is that without a second copy.
    columns = masks.byte().transpose(1, 2).contiguous().cpu().numpy()
    return coco_mask.encode(columns.transpose(2, 1, 0))  # pyright: ignore[reportReturnType]


def mask_areas(masks: Sequence[RLE]) -> np.ndarray:
    """(N,) float64 pixels."""
    # pycocotools 2.0 keeps the number of masks in eight bits under numpy 2 and fails at 256.
    groups: list[Any] = [list(masks[i : i + 255]) for i in range(0, len(masks), 255)]
    parts = [coco_mask.area(group) for group in groups]
    return np.concatenate([np.zeros(0), *parts])


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Collector:
    """Columns of all detections seen: ``image`` (D,) row of the ground truth's images, ``index`` (D,) place within its
    image as given, ``label``, ``score``, ``box`` (D, 4) x, y, width, height, ``area`` of the box, ``mask_score`` (the
    score, where the method does not rate masks), ``mask_area``; and ``pairs``, the overlaps of masks.

    overlaps: how the masks of an image meet its ground truths; none where the protocol looks at boxes alone.
    """

    def __init__(self, truth: GroundTruth, overlaps: Overlaps | None = None) -> None:
        self._truth = truth
        self._overlaps = overlaps
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
        self._pairs: list[Pairs] = []
        self._count = 0
        self._remembered: dict[str, Any] = {}
        self.seen = np.zeros(len(truth.image_ids), bool)
        self.unknown_categories: dict[Any, int] = {}
        """Category ids of a results file that the dataset does not have, and how many detections had them."""
        self.outside = 0
        """Detections that lie wholly outside their image."""

    def __len__(self) -> int:
        return self._count

    def leave_out(self, category: Any) -> None:
        """Counts a detection of a category that the dataset does not have."""
        self.unknown_categories[category] = self.unknown_categories.get(category, 0) + 1

    def found(self, kind: Literal["bbox", "segm", "boundary"]) -> Found:
        """The detections with the scores and areas of their boxes, or of their masks."""
        prefix = "" if kind == "bbox" else "mask_"
        columns = ("image", "index", "label", f"{prefix}score", f"{prefix}area", "box")
        return Found(*map(self.__getitem__, columns))

    def __getitem__(self, name: str) -> np.ndarray:
        return self._compact(name)

    @property
    def pairs(self) -> Pairs:
        """Overlaps of masks; detections counted over all images."""
        self._pairs = [concatenate_pairs(self._pairs)]
        return self._pairs[0]

    def remembered(self, key: str, make: Callable[[], T]) -> T:
        """What ``make`` gives for ``key``, made anew only after something was added."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return self._remembered[key]

    def _compact(self, name: str) -> np.ndarray:
        parts = self._parts[name]
        if len(parts) != 1:
            empty = np.zeros((0, 4) if name == "box" else 0, _COLUMNS[name])
            parts[:] = [np.concatenate([empty, *parts])]
        return parts[0]

    def add(self, image_ids: Sequence[Any], detections: Sequence[Detections]) -> None:
        """Checks and keeps the detections of some images, in original pixels.

        Raises ValueError for lengths that differ, an image that is unknown or was given before, boxes or scores that
        are not finite, a label outside 0..K-1, masks of another size than the image's, and where most of an image's
        boxes end before they start.
        """
        if len(image_ids) != len(detections):
            raise ValueError(f"update: {len(image_ids)} image ids but detections of {len(detections)} images")
        rows = [self._row(image_id) for image_id in image_ids]
        if len(set(rows)) != len(rows):
            raise ValueError(f"update: an image is given twice in one call: {list(image_ids)!r:.200}")
        checked = [self._check(row, found) for row, found in zip(rows, detections)]
        for row, (columns, masks) in zip(rows, checked):
            self._append(row, columns, masks)

    def _row(self, image_id: Any) -> int:
        if hasattr(image_id, "item"):
            # A number of NumPy or PyTorch.
            image_id = image_id.item()
        row = self._truth.position.get(image_id)
        if row is None:
            examples = ", ".join(map(repr, list(self._truth.image_ids)[:3]))
            raise ValueError(f"update: image id {image_id!r} is not in the dataset, whose ids are such as {examples}")
        if self.seen[row]:
            raise ValueError(f"update: image {image_id!r} was given before; each image is scored once")
        return row

    def _check(self, row: int, found: Detections) -> tuple[dict[str, np.ndarray], torch.Tensor | None]:
        where = f"detections of image {self._truth.image_ids[row]!r}"
        boxes = found.boxes.detach().cpu().double().numpy()
        score = found.scores.detach().cpu().double().numpy()
        label = found.labels.detach().cpu().numpy()
        n = len(boxes)
        if boxes.shape != (n, 4) or score.shape != (n,) or label.shape != (n,):
            raise ValueError(
                f"{where}: expected boxes (N, 4), scores (N,), labels (N,); "
                f"found {boxes.shape}, {score.shape}, {label.shape}"
            )
        for name, values in (("boxes", boxes), ("scores", score)):
            if not np.isfinite(values).all():
                raise ValueError(f"{where}: {name} are not finite: {values[~np.isfinite(values)][0]}")
        classes = len(self._truth.classes)
        if n and (label.min() < 0 or label.max() >= classes):
            wrong = label[(label < 0) | (label >= classes)][0]
            raise ValueError(f"{where}: label {wrong}; the dataset has {classes} classes, labels 0 to {classes - 1}")
        reversed_ = (boxes[:, 2:] < boxes[:, :2]).any(1)
        if reversed_.sum() * 2 > n:
            raise ValueError(
                f"{where}: {reversed_.sum()} of {n} boxes end before they start, such as "
                f"{boxes[reversed_][0].tolist()}; expected x1, y1, x2, y2"
            )
        height, width = (int(v) for v in self._truth.sizes[row])
        # Not an error: a detector that does not cut its boxes to the image may well begin with boxes outside.
        away = (boxes[:, 0] > width) | (boxes[:, 1] > height) | (boxes[:, 2] < 0) | (boxes[:, 3] < 0)
        columns = {"index": np.arange(n), "label": label, "score": score, "mask_score": score}
        columns["box"] = np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], 0)], axis=1)
        columns["area"] = columns["box"][:, 2] * columns["box"][:, 3]
        columns["outside"] = away if height and width else np.zeros(n, bool)
        if self._overlaps is None:
            return columns, None
        if found.masks is None:
            raise ValueError(f"{where}: there are no masks; score boxes alone, or give masks")
        if tuple(found.masks.shape) != (n, height, width):
            raise ValueError(
                f"{where}: masks have shape {tuple(found.masks.shape)}; expected {(n, height, width)}, "
                "the size of the original image"
            )
        if found.mask_scores is not None:
            columns["mask_score"] = found.mask_scores.detach().cpu().double().numpy()
            if columns["mask_score"].shape != (n,) or not np.isfinite(columns["mask_score"]).all():
                raise ValueError(f"{where}: mask_scores are not ({n},) finite numbers")
        return columns, found.masks.detach()

    def _append(self, row: int, columns: dict[str, np.ndarray], masks: torch.Tensor | None) -> None:
        n = len(columns["score"])
        if masks is not None:
            encoded = encode_masks(masks)
            columns["mask_area"] = mask_areas(encoded)
            self._add_overlaps(row, encoded, columns["mask_area"])
        else:
            columns["mask_area"] = np.zeros(n)
        self._store({"image": np.full(n, row), **columns})
        self.outside += int(columns["outside"].sum())
        self.seen[row] = True

    def _add_overlaps(self, row: int, masks: list[RLE], areas: np.ndarray) -> None:
        if masks and self._overlaps is not None:
            pairs = self._overlaps(row, masks, areas)
            self._pairs.append(Pairs(pairs.detection + self._count, pairs.truth, pairs.iou))

    def _store(self, columns: dict[str, np.ndarray]) -> None:
        for name, dtype in _COLUMNS.items():
            self._parts[name].append(columns[name].astype(dtype))
        self._count += len(columns["score"])
        self._remembered.clear()

    def add_results_file(self, path: str | Path) -> None:
        """Keeps the detections of a COCO results file: a list of {image_id, category_id, score, bbox, segmentation};
        or of a Parquet file that ``sdk.predict`` wrote.

        As in the official tool, the whole set counts as seen, and unknown categories are left out (and counted). The
        size of an object is its mask's area for masks, also where the file has boxes, which makes the official tool
        take the box's; it is the same as handing that tool the masks alone.
        Raises DatasetError naming file, entry and field for whatever the file should not hold.
        """
        path = Path(path)
        if self._count or self.seen.any():
            raise ValueError(f"{path}: detections were given before; a results file is scored alone")
        if path.suffix == ".parquet":
            with_boxes, with_masks = True, self._overlaps is not None
            results = read_parquet(path, masks=with_masks)
            columns = self._checked(results)
            if columns is None:
                self._check_rows(path, results)
        else:
            with_boxes, with_masks = self._wanted(path)
            results = read_well_formed(path, boxes=with_boxes, masks=with_masks)
            columns = None if results is None else self._checked(results)
        if results is None or columns is None:
            # What is wrong, and where, is found by looking at one entry after the other.
            results = self._read_slowly(path, with_boxes, with_masks)
            columns = self._checked(results)
        if columns is None:
            raise DatasetError("entries are not of one kind", file=path)
        image, label, values = columns
        masks = []
        if with_masks and results.masks is not None:
            masks = [self._mask(path, i, given, int(image[i])) for i, given in enumerate(results.masks)]
        if masks and not with_boxes:
            values[:, 1:] = [coco_mask.toBbox(mask) for mask in masks]  # type: ignore[arg-type]
        known = np.flatnonzero(label >= 0)
        for i in np.flatnonzero(label < 0):
            self.leave_out(results.category_ids[i])
        del results
        image, label, values = image[known], label[known], values[known]
        masks = [masks[i] for i in known] if with_masks else []
        order = np.argsort(image, kind="stable")
        image, label, values = image[order], label[order], values[order]
        masks = [masks[i] for i in order] if with_masks else []
        areas = mask_areas(masks) if with_masks else np.zeros(len(image))
        starts = np.searchsorted(image, np.arange(len(self.seen) + 1))
        if self._overlaps is not None:
            for row in np.unique(image):
                own = slice(starts[row], starts[row + 1])
                pairs = self._overlaps(int(row), masks[own], areas[own])
                self._pairs.append(Pairs(pairs.detection + starts[row], pairs.truth, pairs.iou))
        self._store(
            {
                "image": image,
                "index": np.arange(len(image)) - starts[image],
                "label": label,
                "score": values[:, 0],
                "mask_score": values[:, 0],
                "box": values[:, 1:],
                "area": values[:, 3] * values[:, 4] if with_boxes else areas,
                "mask_area": areas,
            }
        )
        self.seen[:] = True

    def _wanted(self, path: Path) -> tuple[bool, bool]:
        """Whether boxes and whether masks are read, by the first entry of a file."""
        with open(path, encoding="utf-8", errors="replace") as stream:
            head = stream.read(1 << 20)
        try:
            first, _ = json.JSONDecoder().raw_decode(head, max(head.find("{"), 0))
        except ValueError:
            # No entry, or a mask that is longer than what was read: boxes come before masks, where there are any.
            first = {"bbox": '"bbox"' in head.partition('"segmentation"')[0]}
        with_boxes = isinstance(first, dict) and bool(first.get("bbox"))
        return with_boxes, self._overlaps is not None or not with_boxes

    def _checked(self, results: Results) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """(n,) image rows, (n,) labels with -1 for unknown categories, (n, 5) score and box; none where an image is not
        in the dataset, or a number cannot be."""
        labels = {category: label for label, category in enumerate(self._truth.category_ids)}
        labels |= {str(category): label for category, label in labels.items() if str(category) not in labels}
        image = np.array([self._image_row(image_id) for image_id in results.image_ids], np.int64)
        label = np.array([labels.get(category, -1) for category in results.category_ids], np.int64)
        values = np.zeros((len(image), 5))
        values[:, 0] = results.scores
        if results.boxes is not None:
            values[:, 1:] = results.boxes
        fits = (image >= 0).all() and np.isfinite(values).all() and (values[:, 3:] >= 0).all()
        return (image, label, values) if fits else None

    def _image_row(self, image_id: Any) -> int:
        """The row of an image id, which may stand as a number here and as its digits there; -1 for none."""
        row = self._truth.position.get(image_id)
        if row is None and isinstance(image_id, str) and image_id.isdigit():
            row = self._truth.position.get(int(image_id))
        elif row is None and isinstance(image_id, int):
            row = self._truth.position.get(str(image_id))
        return -1 if row is None else row

    def _read_slowly(self, path: Path, with_boxes: bool, with_masks: bool) -> Results:
        """The entries by the standard library. Raises DatasetError for the first one that cannot be used."""
        try:
            entries = json.loads(path.read_bytes())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DatasetError(f"not a JSON file ({error})", file=path) from None
        if not isinstance(entries, list):
            raise DatasetError("not a results file", file=path, found=type(entries).__name__, expected="a list")
        for number, entry in enumerate(entries):
            self._check_entry(path, number, entry, with_boxes)
            if with_masks and "segmentation" not in entry:
                raise DatasetError(
                    "there is no mask", file=path, where=f"entry {number}", field="segmentation", found=sorted(entry)
                )
        return Results(
            image_ids=[entry["image_id"] for entry in entries],
            category_ids=[entry["category_id"] for entry in entries],
            scores=np.array([entry["score"] for entry in entries], np.float64),
            boxes=np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4) if with_boxes else None,
            masks=[entry["segmentation"] for entry in entries] if with_masks else None,
        )

    def _check_rows(self, path: Path, results: Results) -> None:
        """Raises DatasetError for the first row of a Parquet file that cannot be used."""
        assert results.boxes is not None
        columns = (results.image_ids, results.category_ids, results.scores.tolist(), results.boxes.tolist())
        for number, values in enumerate(zip(*columns)):
            self._check_entry(path, number, dict(zip(("image_id", "category_id", "score", "bbox"), values)), True)

    def _check_entry(self, path: Path, number: int, entry: Any, with_boxes: bool) -> None:
        """Raises DatasetError for an entry of a results file that cannot be used."""
        where = f"entry {number}"
        if not isinstance(entry, dict):
            raise DatasetError("not a detection", file=path, where=where, found=entry, expected="an object")
        for field in ("image_id", "category_id", "score", *(["bbox"] if with_boxes else [])):
            if field not in entry:
                raise DatasetError("field is missing", file=path, where=where, field=field, found=sorted(entry))
        for field in ("image_id", "category_id"):
            if not isinstance(entry[field], int | str):
                raise DatasetError("not an id", file=path, where=where, field=field, found=entry[field])
        if self._image_row(entry["image_id"]) < 0:
            raise DatasetError(
                "image is not in the dataset", file=path, where=where, field="image_id", found=entry["image_id"]
            )
        if not _is_finite(entry["score"]):
            raise DatasetError("not a finite number", file=path, where=where, field="score", found=entry["score"])
        box = entry["bbox"] if with_boxes else [0, 0, 0, 0]
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)) or min(box[2:]) < 0:
            raise DatasetError(
                "not a box", file=path, where=where, field="bbox", found=box, expected="[x, y, width, height], finite"
            )

    def _mask(self, path: Path, number: int, given: Any, row: int) -> RLE:
        """The checked mask of an entry: pycocotools does not survive malformed ones."""
        where = f"entry {number}"
        height, width = (int(v) for v in self._truth.sizes[row])
        try:
            if isinstance(given, list):
                counts = encode_polygons(check_polygons(given, (height, width)), (height, width))["counts"]
            else:
                counts = check_rle(given, (height, width))
        except DatasetError as error:
            raise DatasetError(
                error.problem, file=path, where=where, field=error.field, found=error.found, expected=error.expected
            ) from None
        return {"size": [height, width], "counts": counts}

    def state(self) -> dict[str, Any]:
        """Everything collected as plain arrays, small enough to gather across ranks."""
        pairs = self.pairs
        return {
            **{name: self._compact(name) for name in _COLUMNS},
            "pairs": (pairs.detection, pairs.truth, pairs.iou),
            "seen": self.seen.copy(),
            "outside": self.outside,
            "unknown_categories": dict(self.unknown_categories),
        }

    def merge_state(self, state: dict[str, Any]) -> None:
        """Adds what another collector over the same dataset kept. Raises ValueError where both saw an image."""
        if len(state["seen"]) != len(self.seen):
            raise ValueError(f"merge: the other saw a dataset of {len(state['seen'])} images, not {len(self.seen)}")
        twice = np.flatnonzero(state["seen"] & self.seen)
        if len(twice):
            raise ValueError(
                f"merge: {len(twice)} images were given to both, such as {self._truth.image_ids[twice[0]]!r}; "
                "each image is scored once"
            )
        detection, truth, iou = state["pairs"]
        self._pairs.append(Pairs(detection + self._count, truth, iou))
        self._store(state)
        self.seen |= state["seen"]
        self.outside += state["outside"]
        for category, count in state["unknown_categories"].items():
            self.unknown_categories[category] = self.unknown_categories.get(category, 0) + count

    def notes(self) -> list[str]:
        """What a reader should know of what was collected."""
        notes = []
        missing = int((~self.seen).sum())
        if missing:
            notes.append(
                f"{missing} of {len(self.seen)} images were given no detections at all; their objects are missed"
            )
        if self.unknown_categories:
            names = ", ".join(map(str, sorted(self.unknown_categories, key=str)[:5]))
            known = ", ".join(map(str, list(self._truth.category_ids)[:5]))
            count = sum(self.unknown_categories.values())
            notes.append(
                f"{count} detections of categories that the dataset does not have are left out (ids {names} ...; "
                f"the dataset's are {known} ...)" + ("; the category ids are disjoint" if not self._count else "")
            )
        if self.outside:
            notes.append(
                f"{self.outside} detections lie outside their image; boxes are in pixels of the original image"
            )
        return notes + (self._cautions() if self._count else [])

    def _cautions(self) -> list[str]:
        """What in the detections themselves keeps figures low."""
        truth, notes = self._truth, []
        images = len(self.seen)
        counts = ~(truth.ignore | truth.crowd)
        objects = np.bincount(truth.images[counts], minlength=images)
        given = np.bincount(self["image"], minlength=images)
        # Several images with the same, largest number: it is a limit, and no chance.
        limit = int(given.max())
        crowded = int((objects > limit).sum())
        if crowded and (given == limit).sum() > 1:
            notes.append(f"{crowded} images hold more objects than the {limit} detections that an image has at most")
        lowest = float(self["score"].min())
        if LOWEST_USUAL < lowest < 1 and len(np.unique(self["score"][:1000])) > 1:
            notes.append(
                f"no detection scores below {lowest:.3g}: if a threshold cut them off, it cut the curves short"
            )
        known = np.bincount(truth.labels[counts], minlength=len(truth.classes)) > 0
        strange = np.bincount(self["label"], minlength=len(truth.classes)) * ~known
        # Where all of them do, the figures are explained by that already.
        if 0 < strange.sum() < self._count:
            names = ", ".join(str(truth.classes[label]) for label in np.flatnonzero(strange)[:3])
            notes.append(
                f"{strange.sum()} detections name {np.count_nonzero(strange)} classes without an object in the data, "
                f"such as {names}: no figure counts them"
            )
        return notes


class CollectingEvaluator:
    """What all evaluators share: they keep what they are given in a ``Collector`` and score it when asked.

    truth: the ground truth. overlaps: see ``Collector``.
    """

    def __init__(self, truth: GroundTruth, overlaps: Overlaps | None = None) -> None:
        self.truth = truth
        self._collected = Collector(truth, overlaps)

    def update(self, image_ids: Sequence[Any], detections: Sequence[Detections]) -> None:
        """Add the detections of some images, in original pixels; each image once. Errors: ``Collector.add``."""
        self._collected.add(image_ids, detections)

    def update_from_json(self, path: str | Path) -> None:
        """Score a file in the form of COCO results. Errors and rules: ``Collector.add_results_file``."""
        self._collected.add_results_file(path)

    def merge(self, other: CollectingEvaluator) -> None:
        """Add what another rank collected."""
        self.merge_state(other.state())

    def state(self) -> dict[str, Any]:
        """What was collected, as plain arrays: what ranks send instead of the evaluator."""
        return self._collected.state()

    def merge_state(self, state: dict[str, Any]) -> None:
        """Add the state of another rank."""
        self._collected.merge_state(state)
