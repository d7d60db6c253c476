"""What is wrong with a dataset, and the dataset without it. Nothing on disk is changed.

Shape letters: I images, M annotations, K classes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .base import DetectionDataset, ImageInfo, own_evaluator
from .errors import DatasetError, Fault
from .index import Annotations, read_columns
from .leaks import Pair, equal_files, find_leaks, repeated_boxes
from .reading import image_header, is_complete, read_bytes, read_image
from .sample import Sample

Mode = Literal["report", "raise", "skip", "repair"]
# Boxes may end this far outside their image by rounding.
TOLERANCE = 1.0
# COCO's bounds of small, medium and large areas, in square pixels.
SIZES = (("small", 0.0, 32.0**2), ("medium", 32.0**2, 96.0**2), ("large", 96.0**2, float("inf")))
READERS = 8


@dataclass(frozen=True)
class ClassCount:
    """Of one class: objects that count, images that show it, ignored objects, and objects by size of their area."""

    objects: int
    images: int
    ignored: int
    by_size: dict[str, int]


@dataclass(frozen=True)
class CheckReport:
    """What a check found. classes: counts by name. dataset: the checked one, or, where faults were to be skipped or
    repaired, one without them. leaks: pairs of images that are the same picture; without ``leaks=True`` only those of
    equal files in different splits."""

    faults: tuple[Fault, ...]
    images: int
    annotations: int
    images_without_objects: int
    classes: dict[str, ClassCount]
    dataset: Any
    leaks: tuple[Pair, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return not any(fault.level == "error" for fault in self.faults)

    def of_kind(self, kind: str) -> tuple[Fault, ...]:
        """The faults of one kind."""
        return tuple(fault for fault in self.faults if fault.kind == kind)

    def __str__(self) -> str:
        lines = [
            f"{self.images:,} images, {self.annotations:,} annotations, "
            f"{self.images_without_objects:,} images without objects"
        ]
        width = max([len(name) for name in self.classes] + [5])
        sizes = " ".join(f"{name:>8}" for name, _, _ in SIZES)
        lines.append(f"{'class':<{width}} {'objects':>9} {'images':>8} {'ignored':>8} {sizes}")
        for name, count in self.classes.items():
            by_size = " ".join(f"{count.by_size[size]:>8,}" for size, _, _ in SIZES)
            lines.append(f"{name:<{width}} {count.objects:>9,} {count.images:>8,} {count.ignored:>8,} {by_size}")
        kinds = Counter((fault.level, fault.kind) for fault in self.faults)
        for (level, kind), number in sorted(kinds.items()):
            first = next(fault for fault in self.faults if (fault.level, fault.kind) == (level, kind))
            lines.append(f"{level}: {number} x {kind}; the first: {first.error()}")
        if not self.faults:
            lines.append("no faults")
        return "\n".join(lines)


def check(
    dataset: DetectionDataset, *, mode: Mode = "report", decode: bool = False, leaks: bool = False
) -> CheckReport:
    """Look for faults in a dataset and, where it carries several splits, for images that occur in more than one.

    Found are: what the annotation file has wrong (see ``on_fault`` of the adapters, which must not be ``raise`` to
    get this far), missing, truncated and unreadable images, images of another size than annotated, EXIF rotation,
    boxes outside their image, without area or not finite, labels outside the class list, objects annotated twice,
    image ids given twice, images without objects. decode: also decode every image, which finds damage inside files.
    leaks: also look for near duplicates within and between splits (see ``leaks.find_leaks``), the same picture with
    other labels, and equal boxes of two classes.
    mode: ``report`` all; ``raise`` the first error as DatasetError; ``skip`` gives a dataset without the images and
    objects that are at fault; ``repair`` does the same but cuts boxes to their image instead of leaving them out.
    """
    if mode not in ("report", "raise", "skip", "repair"):
        raise ValueError(f"mode: expected 'report', 'raise', 'skip' or 'repair', found {mode!r}")
    faults: list[Fault] = list(getattr(dataset, "faults", ()))
    if len(dataset) == 0:
        faults.append(Fault("the dataset has no images", _text(getattr(dataset, "image_root", None))))
    columns = getattr(dataset, "annotations", None)
    if isinstance(columns, Annotations):
        objects, bad_images = (
            list(_column_faults(dataset, columns, faults)),
            _image_faults(dataset, columns, decode, faults),
        )
    else:
        objects, bad_images = _sample_faults(dataset, faults)
    splits = _opened_splits(dataset, faults)
    pairs = find_leaks(splits) if leaks else equal_files(splits)
    faults += [pair.fault() for pair in pairs]
    if leaks:
        faults += [fault for name, part in splits.items() for fault in repeated_boxes(part, name)]
    if mode == "raise":
        first = next((fault for fault in faults if fault.level == "error"), None)
        if first is not None:
            raise first.error()
    cleaned: Any = dataset
    if mode in ("skip", "repair"):
        kept = np.array([i for i in range(len(dataset)) if i not in bad_images], np.int64)
        cleaned = Cleaned(dataset, kept, cut=mode == "repair")
    return CheckReport(
        faults=tuple(faults),
        images=len(dataset),
        annotations=len(objects),
        images_without_objects=len(dataset) - len({image for image, _, _, ignored in objects if not ignored}),
        classes=_count_classes(dataset, objects),
        dataset=cleaned,
        leaks=tuple(pairs),
    )


# An annotation for counting: image index, label, area, whether it is ignored.
_Object = tuple[int, int, float, bool]


def _column_faults(dataset: Any, columns: Annotations, faults: list[Fault]) -> Iterator[_Object]:
    """Yields every annotation and notes what is wrong with it."""
    ids, counts = np.unique(columns.image_ids, return_counts=True)
    for image_id in ids[counts > 1]:
        faults.append(Fault("duplicate image id", where=f"image {image_id}", field="id"))
    owners = columns.image_of()
    for index in range(len(columns.image_ids)):
        rows = columns.rows(index)
        name = str(dataset.path(index)) if hasattr(dataset, "path") else columns.image_files[index]
        size = (int(columns.image_sizes[index, 0]), int(columns.image_sizes[index, 1]))
        boxes, labels, ignore = columns.boxes[rows], columns.labels[rows], columns.ignore[rows]
        # The stated ends say whether a box has an area: of VOC's, equal ends still cover a pixel.
        stated = columns.stated_boxes[rows]
        flat = np.any(stated[:, 2:] <= (0 if columns.box_format == "xywh" else stated[:, :2]), axis=1)
        for offset, kind, level in box_faults(boxes, labels, ignore, size, flat):
            row = rows.start + offset
            where = f"annotation {columns.annotation_ids[row]}"
            faults.append(Fault(kind, name, where, "bbox", str(columns.stated_boxes[row].tolist()), level=level))
        if not (~ignore & columns.usable[rows]).any():
            faults.append(Fault("image without objects", name, f"image {columns.image_ids[index]}", level="note"))
    yield from zip(owners.tolist(), columns.labels.tolist(), columns.areas.tolist(), columns.ignore.tolist())


def box_faults(
    boxes: np.ndarray, labels: np.ndarray, ignore: np.ndarray, size: tuple[int, int], flat: np.ndarray
) -> list[tuple[int, str, str]]:
    """(row, kind, level) of what is wrong with the boxes (N, 4) xyxy of one image of (H, W), (0, 0) where unknown.

    flat: (N,) bool, boxes that are known to have no area.
    """
    found: list[tuple[int, str, str]] = []
    finite = np.isfinite(boxes).all(1)
    found += [(int(row), "box is not finite", "error") for row in np.flatnonzero(~finite)]
    flat = finite & (flat | np.any(boxes[:, 2:] <= boxes[:, :2], axis=1))
    found += [(int(row), "box without area", "error") for row in np.flatnonzero(flat)]
    if size != (0, 0):
        limits = np.array([size[1], size[0], size[1], size[0]])
        inside = np.clip(boxes, 0, limits)
        gone = finite & ~flat & np.any(inside[:, 2:] <= inside[:, :2], axis=1)
        found += [(int(row), "box outside the image", "error") for row in np.flatnonzero(gone)]
        beyond = finite & ~flat & ~gone & np.any(np.abs(inside - boxes) > TOLERANCE, axis=1)
        found += [(int(row), "box partly outside the image", "warning") for row in np.flatnonzero(beyond)]
    repeats = [row for row in _repeats(boxes, labels, ignore) if np.isfinite(boxes[row]).all()]
    found += [(row, "object annotated twice", "warning") for row in repeats]
    return found


def _repeats(boxes: np.ndarray, labels: np.ndarray, ignore: np.ndarray) -> list[int]:
    """Rows that repeat the box and label of an earlier row."""
    seen: set[tuple[Any, ...]] = set()
    repeated = []
    for row, key in enumerate(zip(map(tuple, boxes.tolist()), labels.tolist(), ignore.tolist())):
        if key in seen:
            repeated.append(row)
        seen.add(key)
    return repeated


def _image_faults(dataset: Any, columns: Annotations, decode: bool, faults: list[Fault]) -> set[int]:
    """Notes what is wrong with the image files; gives the indices of those that cannot be used."""
    if not hasattr(dataset, "path"):
        return set()
    bad: set[int] = set()
    sizes = [(int(h), int(w)) for h, w in columns.image_sizes]
    look: Callable[[int], list[Fault]] = lambda index: image_faults(dataset.path(index), sizes[index], decode)
    with ThreadPoolExecutor(READERS) as readers:
        for index, found in enumerate(readers.map(look, range(len(sizes)))):
            faults += found
            if any(fault.level == "error" for fault in found):
                bad.add(index)
    return bad


def image_faults(path: Path, size: tuple[int, int], decode: bool) -> list[Fault]:
    """What is wrong with an image file that should be (H, W), (0, 0) where that is not known."""
    name = str(path)
    try:
        data = read_bytes(path)
        if not is_complete(data):
            return [Fault("image file is truncated", name, found=f"{len(data)} bytes without an end marker")]
        (h, w), orientation = image_header(path, verify=decode)
        if decode:
            read_image(path, size if size != (0, 0) else None)
    except DatasetError as error:
        return [Fault(error.problem, name, field=error.field, found=None if error.found is None else str(error.found))]
    found = []
    if orientation != 1:
        found.append(Fault("EXIF rotation", name, field="Orientation", found=str(orientation), level="note"))
    if size not in ((0, 0), (h, w), (w, h) if orientation >= 5 else (h, w)):
        kind = "image size differs from the annotated one"
        found.append(Fault(kind, name, None, "height, width", str((h, w)), str(size)))
    return found


def _sample_faults(dataset: DetectionDataset, faults: list[Fault]) -> tuple[list[_Object], set[int]]:
    """Reads every sample of a dataset without columns; gives its annotations and the indices that cannot be used."""
    objects: list[_Object] = []
    bad: set[int] = set()
    seen: set[Any] = set()
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
            check_sample(sample, len(dataset.classes))
        except DatasetError as error:
            name = _text(error.file) or f"image {index}"
            found = None if error.found is None else str(error.found)
            faults.append(Fault(error.problem, name, _text(error.where), error.field, found, _text(error.expected)))
            bad.add(index)
            continue
        name = _text(sample.path) or f"image {sample.image_id}"
        if sample.image_id in seen:
            faults.append(Fault("duplicate image id", name, field="image_id", found=repr(sample.image_id)))
        seen.add(sample.image_id)
        flat = np.zeros(len(sample.labels), bool)
        for row, kind, level in box_faults(sample.boxes, sample.labels, sample.ignore, sample.size, flat):
            faults.append(Fault(kind, name, f"object {row}", "boxes", str(sample.boxes[row].tolist()), level=level))
        outside = (sample.labels < 0) | (sample.labels >= len(dataset.classes))
        for row in np.flatnonzero(outside):
            expected = f"0..{len(dataset.classes) - 1}"
            faults.append(Fault("unknown category", name, f"object {row}", "labels", str(sample.labels[row]), expected))
        if not (~sample.ignore).any():
            faults.append(Fault("image without objects", name, level="note"))
        if dataset.info(index).size != sample.size:
            faults.append(Fault("info and sample differ in size", name, f"image {index}", "size"))
        areas = np.prod(np.maximum(sample.boxes[:, 2:] - sample.boxes[:, :2], 0), 1)
        for label, area, ignored, wrong in zip(sample.labels, areas, sample.ignore, outside):
            if not wrong:
                objects.append((index, int(label), float(area), bool(ignored)))
    return objects, bad


def check_sample(sample: Sample, num_classes: int) -> None:
    """Raises DatasetError where the arrays of a sample do not have the shapes and types of the contract."""
    where = f"image {sample.image_id}"
    count = len(sample.labels) if np.ndim(sample.labels) else 0
    rules: list[tuple[str, Any, bool, str]] = [
        ("image", sample.image, np.ndim(sample.image) == 3 and sample.image.shape[2] == 3, "(H, W, 3)"),
        ("image", sample.image, getattr(sample.image, "dtype", None) == np.uint8, "uint8"),
        ("labels", sample.labels, np.ndim(sample.labels) == 1 and sample.labels.dtype.kind in "iu", "(N,) integers"),
        ("boxes", sample.boxes, np.shape(sample.boxes) == (count, 4), f"({count}, 4)"),
        ("ignore", sample.ignore, np.shape(sample.ignore) == (count,), f"({count},) bool"),
        ("masks", sample.masks, sample.masks is None or len(sample.masks) == count, f"{count} masks"),
        (
            "masks",
            sample.masks,
            sample.masks is None or tuple(sample.masks.size) == sample.size,
            f"of size {sample.size}",
        ),
    ]
    for field, value, holds, expected in rules:
        if not holds:
            found = (
                f"{getattr(value, 'dtype', type(value).__name__)} {np.shape(value) if hasattr(value, 'shape') else ''}"
            )
            raise DatasetError(
                "sample breaks the contract", file=sample.path, where=where, field=field, found=found, expected=expected
            )


def _opened_splits(dataset: Any, faults: list[Fault]) -> dict[str, DetectionDataset]:
    """The splits by name, or the dataset alone; notes those that cannot be opened."""
    names = getattr(dataset, "splits", None) or {}
    if len(names) < 2:
        return {"all": dataset}
    opened = {}
    for name in names:
        try:
            opened[name] = names[name]
        except DatasetError as error:
            found = None if error.found is None else str(error.found)
            where, expected = _text(error.where), _text(error.expected)
            faults.append(Fault(error.problem, _text(error.file), where, error.field, found, expected))
    return opened


def _count_classes(dataset: DetectionDataset, objects: list[_Object]) -> dict[str, ClassCount]:
    images, labels, areas, ignored = (np.array(column) for column in zip(*objects)) if objects else (np.zeros(0),) * 4
    counts = {}
    for label, name in enumerate(dataset.classes):
        own = (labels == label) & (ignored == 0)
        counts[name] = ClassCount(
            objects=int(own.sum()),
            images=len(np.unique(images[own])),
            ignored=int(((labels == label) & (ignored == 1)).sum()),
            by_size={size: int((own & (areas >= low) & (areas < high)).sum()) for size, low, high in SIZES},
        )
    return counts


class Cleaned:
    """A dataset without the images that cannot be used and without the objects that are at fault.

    cut: cut boxes to their image instead of leaving out those that reach outside.
    """

    def __init__(self, dataset: DetectionDataset, images: np.ndarray, *, cut: bool) -> None:
        self.dataset, self.images, self.cut = dataset, images, cut
        self.classes, self.category_ids = dataset.classes, dataset.category_ids
        self.protocol = getattr(dataset, "protocol", "coco")

    @property
    def fingerprint(self) -> str:
        """Hash of the checked dataset's and of what was kept."""
        kept = self.images.tobytes() + bytes([self.cut])
        return hashlib.sha256(self.dataset.fingerprint.encode() + kept).hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        place = int(self.images[index])
        sample, columns = self.dataset[place], getattr(self.dataset, "annotations", None)
        if isinstance(columns, Annotations):
            # The columns have the boxes as stated; those of the sample are cut to the image already.
            kept = self._kept_rows(columns, place)[columns.usable[columns.rows(place)]]
        else:
            kept = self._kept(sample.boxes, sample.labels, sample.ignore, sample.size)
        sample = sample.keep(np.flatnonzero(kept))
        h, w = sample.size
        return replace(sample, boxes=np.clip(sample.boxes, 0, np.array([w, h, w, h], np.float32)))

    @cached_property
    def annotations(self) -> Annotations:
        """The ground truth as columns, without what is left out."""
        whole = getattr(self.dataset, "annotations", None)
        if not isinstance(whole, Annotations):
            return read_columns(self)
        columns = whole.select(self.images)
        kept = [self._kept_rows(columns, index) for index in range(len(self))]
        return columns.keep(np.concatenate([*kept, np.zeros(0, bool)]) & columns.usable)

    def info(self, index: int) -> ImageInfo:
        columns, info = self.annotations, self.dataset.info(int(self.images[index]))
        rows = columns.rows(index)
        return replace(info, labels=columns.labels[rows][~columns.ignore[rows]])

    def evaluator(self) -> Any:
        return own_evaluator(self)

    def _kept_rows(self, columns: Annotations, image: int) -> np.ndarray:
        rows, (h, w) = columns.rows(image), columns.image_sizes[image]
        return self._kept(columns.boxes[rows], columns.labels[rows], columns.ignore[rows], (int(h), int(w)))

    def _kept(self, boxes: np.ndarray, labels: np.ndarray, ignore: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(N,) bool: objects without fault, or with one that is cut off."""
        kept = (labels >= 0) & (labels < len(self.classes))
        for row, kind, _ in box_faults(boxes, labels, ignore, size, np.zeros(len(kept), bool)):
            kept[row] &= self.cut and kind == "box partly outside the image"
        return kept


def _text(value: object) -> str | None:
    return None if value is None else str(value)
