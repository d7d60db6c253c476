"""Annotations as flat columns: what adapters read, what evaluators score against, what workers share.

Shape letters: I images, M annotations of all images, K classes, P polygons of all annotations, C polygon
coordinates of all polygons, R bytes of all run lengths.

A JSON file of a million annotations takes gigabytes as Python objects, and every loader worker would hold a copy.
Here it becomes a few arrays. They are written to a cache folder once per machine and memory mapped afterwards, so
that opening costs nothing and processes share the pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np

from . import masks as mask_codec
from .base import DetectionDataset
from .errors import DatasetError, Fault

NO_SEGMENT, POLYGONS, RLE = 0, 1, 2
# Part of every cache key: raise it whenever a parser or the columns change, so that older files are not read.
FORMAT = 4
# Kinds of faults that end when a file appears.
MISSING = ("image is missing", "file is missing")
FEW_FILES, BLOCK, BLOCKS = 16, 1 << 16, 64


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row i is ``values[offsets[i]:offsets[i + 1]]``."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: np.ndarray) -> Ragged:
        """The given rows, in that order."""
        starts, lengths = self.offsets[rows], np.diff(self.offsets)[rows]
        offsets = _offsets(lengths)
        return Ragged(self.values[_ranges(starts, lengths)], offsets)

    @staticmethod
    def of(rows: Iterable[Sequence[int] | np.ndarray], dtype: Any = np.int64) -> Ragged:
        """From sequences."""
        parts = [np.asarray(row, dtype=dtype).reshape(-1) for row in rows]
        values = np.concatenate(parts) if parts else np.zeros(0, dtype)
        return Ragged(values, _offsets(np.array([len(part) for part in parts], np.int64)))


@dataclass(frozen=True)
class Texts:
    """Strings as UTF-8 bytes with offsets."""

    data: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def take(self, rows: np.ndarray) -> Texts:
        """The given rows, in that order."""
        taken = Ragged(self.data, self.offsets).take(rows)
        return Texts(taken.values, taken.offsets)

    def tolist(self) -> list[str]:
        """All of them; quicker than one by one."""
        data = self.data.tobytes()
        text = data.decode() if data.isascii() else None
        ends = pairwise(self.offsets.tolist())
        return [data[a:b].decode() for a, b in ends] if text is None else [text[a:b] for a, b in ends]

    @staticmethod
    def of(texts: Iterable[str]) -> Texts:
        """From strings."""
        encoded = [text.encode() for text in texts]
        data = np.frombuffer(b"".join(encoded), np.uint8)
        return Texts(data, _offsets(np.array([len(text) for text in encoded], np.int64)))


@dataclass(frozen=True)
class Segments:
    """The masks of M annotations as the file gives them: polygons or compressed run lengths, validated.

    rows: (M,) place of each annotation in the other arrays, which a selection shares with its whole.
    kinds: 0 none, 1 polygons, 2 run lengths. polygon_offsets: annotation to polygons. point_offsets: polygon to
    coordinates. coordinates: x, y, x, y ... in pixels. rle_offsets: annotation to bytes of ``rle_bytes``.
    """

    rows: np.ndarray
    kinds: np.ndarray
    polygon_offsets: np.ndarray
    point_offsets: np.ndarray
    coordinates: np.ndarray
    rle_offsets: np.ndarray
    rle_bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def kind(self, annotation: int) -> int:
        """``NO_SEGMENT``, ``POLYGONS`` or ``RLE``."""
        return int(self.kinds[self.rows[annotation]])

    def polygons(self, annotation: int) -> list[np.ndarray]:
        """The polygons of an annotation, each (n, 2) float64."""
        row = self.rows[annotation]
        first, last = self.polygon_offsets[row], self.polygon_offsets[row + 1]
        ends = self.point_offsets[first : last + 1]
        return [np.asarray(self.coordinates[a:b]).reshape(-1, 2) for a, b in pairwise(ends)]

    def counts(self, annotation: int) -> bytes:
        """The compressed run lengths of an annotation."""
        row = self.rows[annotation]
        return self.rle_bytes[self.rle_offsets[row] : self.rle_offsets[row + 1]].tobytes()

    def compact(self) -> Segments:
        """The same masks in arrays that hold nothing else, in row order."""
        polygons = Ragged(np.arange(len(self.point_offsets) - 1), self.polygon_offsets).take(self.rows)
        points = Ragged(self.coordinates, self.point_offsets).take(polygons.values)
        runs = Ragged(self.rle_bytes, self.rle_offsets).take(self.rows)
        return Segments(
            rows=np.arange(len(self.rows)),
            kinds=self.kinds[self.rows],
            polygon_offsets=polygons.offsets,
            point_offsets=points.offsets,
            coordinates=points.values,
            rle_offsets=runs.offsets,
            rle_bytes=runs.values,
        )


@dataclass(frozen=True)
class Annotations:
    """The ground truth of a dataset as columns; the annotations of image i are rows
    ``image_offsets[i]:image_offsets[i + 1]``, in the order of the file.

    Everything that the file states is here, also what training leaves out (boxes without area, for one), so that
    scores are those of the official tool.

    image_ids: (I,) int64, or strings. image_sizes: (I, 2) H, W, 0 where not known. image_offsets: (I + 1,).
    image_files: names relative to the image folder.
    annotation_ids: (M,) int64, or strings. boxes: (M, 4) float64 xyxy pixels, origin 0, ends exclusive.
    stated_boxes: (M, 4) float64, exactly the file's numbers in the file's own convention, ``box_format``:
    ``xywh`` (COCO, LVIS, WIDER FACE) or ``voc`` (xmin, ymin, xmax, ymax counted from 1, ends inclusive; ``boxes``
    are then xmin - 1, ymin - 1, xmax, ymax: the protocol's width ``xmax - xmin + 1`` is the plain width of ``boxes``).
    labels: (M,) int64. ignore: (M,) bool: crowd, difficult or invalid. crowd: (M,) bool, regions of many objects.
    usable: (M,) bool: the box covers a pixel of the image; samples leave the others out.
    areas: (M,) float64 as stated by the file, else of the box (of the mask where the source is a mask).
    segments: masks, or none.
    neg_labels, not_exhaustive_labels: by image, the classes verified as absent and those not fully annotated (LVIS).
    frequencies: (K,) ``r``, ``c``, ``f`` of each class (LVIS).
    """

    image_ids: np.ndarray
    image_sizes: np.ndarray
    image_offsets: np.ndarray
    image_files: Texts
    annotation_ids: np.ndarray
    boxes: np.ndarray
    stated_boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    crowd: np.ndarray
    usable: np.ndarray
    areas: np.ndarray
    box_format: str = "xywh"
    segments: Segments | None = None
    neg_labels: Ragged | None = None
    not_exhaustive_labels: Ragged | None = None
    frequencies: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of annotations."""
        return len(self.labels)

    def rows(self, image: int) -> slice:
        """The annotations of an image."""
        return slice(int(self.image_offsets[image]), int(self.image_offsets[image + 1]))

    def image_of(self) -> np.ndarray:
        """(M,) index of the image of each annotation."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.image_offsets))

    def segmentation(self, annotation: int) -> dict[str, Any]:
        """The mask of an annotation as COCO run lengths ``{"size": [H, W], "counts": bytes}``; empty where the file
        has none.

        Raises DatasetError where the dataset has no masks.
        """
        if self.segments is None:
            raise DatasetError("the dataset has no masks", field="segmentation")
        image = int(np.searchsorted(self.image_offsets, annotation, side="right")) - 1
        size = (int(self.image_sizes[image, 0]), int(self.image_sizes[image, 1]))
        kind = self.segments.kind(annotation)
        if kind == RLE:
            return {"size": list(size), "counts": self.segments.counts(annotation)}
        polygons = self.segments.polygons(annotation) if kind == POLYGONS else []
        return mask_codec.encode_polygons(polygons, size)

    def select(self, images: np.ndarray) -> Annotations:
        """The columns of some images, in the given order; an image may come more than once."""
        images = np.asarray(images, np.int64)
        lengths = np.diff(self.image_offsets)[images]
        rows = _ranges(self.image_offsets[images], lengths)
        return replace(
            self._take(rows),
            image_ids=self.image_ids[images],
            image_sizes=self.image_sizes[images],
            image_files=self.image_files.take(images),
            image_offsets=_offsets(lengths),
            neg_labels=None if self.neg_labels is None else self.neg_labels.take(images),
            not_exhaustive_labels=None
            if self.not_exhaustive_labels is None
            else self.not_exhaustive_labels.take(images),
        )

    def keep(self, kept: np.ndarray) -> Annotations:
        """The columns of all images with only the kept annotations, (M,) bool."""
        counts = np.concatenate([[0], np.cumsum(kept)])
        return replace(self._take(np.flatnonzero(kept)), image_offsets=counts[self.image_offsets])

    def relabel(self, new_labels: np.ndarray) -> Annotations:
        """The columns with other labels: (K,) new label of each old one, -1 for classes to leave out."""
        kept = self.keep(new_labels[self.labels] >= 0)

        def renamed(rows: Ragged | None) -> Ragged | None:
            return None if rows is None else Ragged.of([new_labels[r][new_labels[r] >= 0] for r in _iterate(rows)])

        order = np.argsort(new_labels[new_labels >= 0])
        return replace(
            kept,
            labels=new_labels[kept.labels],
            neg_labels=renamed(self.neg_labels),
            not_exhaustive_labels=renamed(self.not_exhaustive_labels),
            frequencies=None if self.frequencies is None else self.frequencies[new_labels >= 0][order],
        )

    def _take(self, rows: np.ndarray) -> Annotations:
        columns = ("annotation_ids", "boxes", "stated_boxes", "labels", "ignore", "crowd", "usable", "areas")
        taken = {name: getattr(self, name)[rows] for name in columns}
        segments = None if self.segments is None else replace(self.segments, rows=self.segments.rows[rows])
        return replace(self, **taken, segments=segments)


def concatenate(parts: Sequence[Annotations]) -> Annotations:
    """The columns of several datasets with the same classes, one after the other.

    Masks are kept where any part has them. Image ids become strings ``part/id`` where they would collide.
    """
    if len({part.box_format for part in parts}) > 1:
        parts = [replace(part, stated_boxes=_xywh(part.boxes), box_format="xywh") for part in parts]
    ids = [part.image_ids for part in parts]
    joined = np.concatenate(ids)
    if len(np.unique(joined)) < sum(len(np.unique(part)) for part in ids):
        joined = np.concatenate([np.array([f"{i}/{x}" for x in part]) for i, part in enumerate(ids)])
    segments = None
    if any(part.segments is not None for part in parts):
        segments = _concatenate_segments([part.segments or _no_segments(len(part)) for part in parts])

    def texts(rows: Sequence[Texts]) -> Texts:
        whole = _concatenate_ragged([Ragged(row.data, row.offsets) for row in rows])
        return Texts(whole.values, whole.offsets)

    def optional(name: str) -> Ragged | None:
        rows = [getattr(part, name) for part in parts]
        return None if any(row is None for row in rows) else _concatenate_ragged(rows)

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Annotations(
        image_ids=joined,
        image_sizes=column("image_sizes"),
        image_offsets=_offsets(np.concatenate([np.diff(part.image_offsets) for part in parts])),
        image_files=texts([part.image_files for part in parts]),
        annotation_ids=column("annotation_ids"),
        boxes=column("boxes"),
        stated_boxes=column("stated_boxes"),
        labels=column("labels"),
        ignore=column("ignore"),
        crowd=column("crowd"),
        usable=column("usable"),
        areas=column("areas"),
        box_format=parts[0].box_format,
        segments=segments,
        neg_labels=optional("neg_labels"),
        not_exhaustive_labels=optional("not_exhaustive_labels"),
        frequencies=parts[0].frequencies,
    )


def insert(columns: Annotations, places: np.ndarray, more: Annotations, more_places: np.ndarray) -> Annotations:
    """Annotations added to those of the same images and classes; ids become strings where either has strings.

    places, more_places: (M,) and (m,) order that the annotations of one image have.
    """
    images = np.concatenate([columns.image_of(), more.image_of()])
    order = np.lexsort((np.concatenate([places, more_places]), images))

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(columns, name), getattr(more, name)])

    segments = None
    if columns.segments is not None:
        parts = [(part.segments or _no_segments(len(part))).compact() for part in (columns, more)]
        segments = _concatenate_segments(parts)
    joined = replace(
        columns,
        annotation_ids=id_array([*columns.annotation_ids.tolist(), *more.annotation_ids.tolist()]),
        **{name: column(name) for name in ("boxes", "stated_boxes", "labels", "ignore", "crowd", "usable", "areas")},
        segments=segments,
    )
    offsets = _offsets(np.bincount(images, minlength=len(columns.image_ids)))
    return replace(joined._take(order), image_offsets=offsets)


def columns_of(dataset: DetectionDataset) -> Annotations:
    """The ground truth columns of any dataset: its ``annotations`` where it has them, else read from its samples."""
    own = getattr(dataset, "annotations", None)
    return own if isinstance(own, Annotations) else read_columns(dataset)


def read_columns(dataset: DetectionDataset) -> Annotations:
    """Columns built by reading every sample once; areas are those of the masks, or of the boxes without masks."""
    builder = Builder()
    for index in range(len(dataset)):
        sample = dataset[index]
        builder.image(sample.image_id, sample.size, "" if sample.path is None else str(sample.path))
        dense = None if sample.masks is None else sample.masks.decode()
        for i, (box, label) in enumerate(zip(np.asarray(sample.boxes, np.float64), sample.labels)):
            encoded = None if dense is None else mask_codec.encode(dense[i])
            area = float((box[2] - box[0]) * (box[3] - box[1])) if dense is None else float(dense[i].sum())
            builder.annotation(
                len(builder) + 1,
                index,
                box=box,
                stated=(box[0], box[1], box[2] - box[0], box[3] - box[1]),
                label=int(label),
                area=area,
                ignore=bool(sample.ignore[i]),
                crowd=bool(sample.ignore[i]),
                counts=None if encoded is None else encoded["counts"],
            )
    return builder.finish()


@dataclass(frozen=True)
class Batch:
    """Annotations in the order in which a file has them, before they are sorted by image; M of them.

    places: (M,) numbers that the order follows. images: (M,) index of the image of each. The others as in
    ``Annotations``.
    """

    places: np.ndarray
    images: np.ndarray
    annotation_ids: np.ndarray
    boxes: np.ndarray
    stated_boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    segments: Segments


class Builder:
    """Collects images and annotations in any order and makes the columns."""

    def __init__(self) -> None:
        self._image_ids: list[Any] = []
        self._sizes: list[tuple[int, int]] = []
        self._files: list[str] = []
        self._batches: list[Batch] = []
        self._places = array("q")
        self._images = array("q")
        self._ids: list[Any] = []
        self._boxes, self._stated, self._areas = array("d"), array("d"), array("d")
        self._labels = array("q")
        self._ignore, self._crowd = array("b"), array("b")
        self._kinds = array("b")
        self._polygons = array("q", [0])
        self._points = array("q", [0])
        self._coordinates = array("d")
        self._rle_ends = array("q", [0])
        self._rle = bytearray()

    def __len__(self) -> int:
        """Number of annotations so far."""
        return len(self._labels) + sum(len(batch.labels) for batch in self._batches)

    @property
    def files(self) -> Sequence[str]:
        """The names of the images so far."""
        return self._files

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """The (H, W) of the images so far."""
        return self._sizes

    def image(self, image_id: Any, size: tuple[int, int], file: str) -> int:
        """Add an image of (H, W); gives its index."""
        self._image_ids.append(image_id)
        self._sizes.append(size)
        self._files.append(file)
        return len(self._files) - 1

    def images(self, image_ids: Sequence[Any], sizes: Sequence[tuple[int, int]], files: Sequence[str]) -> None:
        """Add many."""
        self._image_ids.extend(image_ids)
        self._sizes.extend(sizes)
        self._files.extend(files)

    def annotation(
        self,
        annotation_id: Any,
        image: int,
        *,
        box: Sequence[float] | np.ndarray,
        stated: Sequence[float] | np.ndarray,
        label: int,
        area: float,
        ignore: bool = False,
        crowd: bool = False,
        polygons: Sequence[Sequence[float]] | None = None,
        counts: bytes | None = None,
        place: int | None = None,
    ) -> None:
        """Add an annotation of the image with that index; the mask as validated polygons or compressed counts.

        place: a number that its order within the image follows; by default they come as they are added.
        """
        self._places.append(len(self) if place is None else place)
        self._ids.append(annotation_id)
        self._images.append(image)
        self._boxes.extend(box)
        self._stated.extend(stated)
        self._labels.append(label)
        self._areas.append(area)
        self._ignore.append(ignore)
        self._crowd.append(crowd)
        for polygon in polygons or ():
            self._coordinates.extend(polygon)
            self._points.append(len(self._coordinates))
        self._polygons.append(len(self._points) - 1)
        if counts is not None:
            self._rle += counts
        self._rle_ends.append(len(self._rle))
        self._kinds.append(RLE if counts is not None else POLYGONS if polygons else NO_SEGMENT)

    def annotations(self, batch: Batch) -> None:
        """Add many."""
        self._batches.append(batch)

    def finish(self, *, box_format: str = "xywh", masks: bool | None = None) -> Annotations:
        """The columns. ``masks``: whether the dataset has any; by default, whether an annotation has one."""
        parts = [*self._batches, self._single()]
        parts = [part for part in parts if len(part.labels)] or parts

        def column(name: str) -> np.ndarray:
            found = [getattr(part, name) for part in parts]
            return found[0] if len(found) == 1 else np.concatenate(found)

        images = column("images")
        order = np.lexsort((column("places"), images))
        in_order = np.array_equal(order, np.arange(len(order)))

        def sort(values: np.ndarray) -> np.ndarray:
            # Most files are in order: then nothing is copied.
            return values if in_order else values[order]

        segments = None
        if masks or (masks is None and any(part.segments.kinds[part.segments.rows].any() for part in parts)):
            segments = _concatenate_segments([part.segments for part in parts])
            segments = replace(segments, rows=sort(segments.rows))
        ids = [part.annotation_ids for part in parts]
        if len({part.dtype.kind for part in ids}) > 1:
            ids = [id_array([i for part in ids for i in part.tolist()])]
        sizes = np.array(self._sizes, np.int64).reshape(-1, 2)
        boxes = sort(column("boxes"))
        return Annotations(
            image_ids=id_array(self._image_ids),
            image_sizes=sizes,
            image_offsets=_offsets(np.bincount(images, minlength=len(self._files))),
            image_files=Texts.of(self._files),
            annotation_ids=sort(ids[0] if len(ids) == 1 else np.concatenate(ids)),
            boxes=boxes,
            stated_boxes=sort(column("stated_boxes")),
            labels=sort(column("labels")),
            ignore=sort(column("ignore")),
            crowd=sort(column("crowd")),
            usable=_usable(boxes, sizes[images[order]]),
            areas=sort(column("areas")),
            box_format=box_format,
            segments=segments,
        )

    def _single(self) -> Batch:
        """What was added one by one."""
        segments = Segments(
            rows=np.arange(len(self._kinds)),
            kinds=np.array(self._kinds, np.uint8),
            polygon_offsets=np.array(self._polygons, np.int64),
            point_offsets=np.array(self._points, np.int64),
            coordinates=np.array(self._coordinates, np.float64),
            rle_offsets=np.array(self._rle_ends, np.int64),
            rle_bytes=np.frombuffer(bytes(self._rle), np.uint8),
        )
        return Batch(
            places=np.array(self._places, np.int64),
            images=np.array(self._images, np.int64),
            annotation_ids=id_array(self._ids),
            boxes=np.array(self._boxes, np.float64).reshape(-1, 4),
            stated_boxes=np.array(self._stated, np.float64).reshape(-1, 4),
            labels=np.array(self._labels, np.int64),
            ignore=np.array(self._ignore, bool),
            crowd=np.array(self._crowd, bool),
            areas=np.array(self._areas, np.float64),
            segments=segments,
        )


def id_array(ids: Sequence[Any]) -> np.ndarray:
    """Ids as one array: int64 where all are whole numbers, else strings."""
    if all(isinstance(i, int | np.integer) and not isinstance(i, bool) and -(2**63) <= i < 2**63 for i in ids):
        return np.array(ids, np.int64)
    return np.array([str(i) for i in ids])


@dataclass(frozen=True)
class Index:
    """What parsing gives: columns, class names with their original ids, the content hash, and the faults met.

    folder: of the cache, where it lies there. images: the ``image_state`` of the images that were looked at.
    """

    annotations: Annotations
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    fingerprint: str = ""
    faults: tuple[Fault, ...] = ()
    folder: Path | None = None
    images: str = ""

    def __reduce__(self):
        # A process that is sent the index maps the same files instead of receiving a copy of the arrays.
        if self.folder is None:
            return _plain_index, tuple(getattr(self, f.name) for f in fields(self))
        return load, (self.folder,)


def _plain_index(*values: Any) -> Index:
    return Index(*values)


def cache_folder() -> Path:
    """Where columns are kept: ``$SDK_CACHE``, else ``sdk`` in the user's cache folder."""
    own = os.environ.get("SDK_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdk"


def cached(
    sources: Iterable[Path],
    settings: Sequence[object],
    parse: Callable[[], Index],
    images: Callable[[Index], Iterable[str]] | None = None,
) -> Index:
    """The index of some annotation files, parsed once per machine.

    The key is made of ``settings`` and of path, size, times and content of every source (``file_state``), so that a
    changed file is parsed again. images: the files of the images, where their names or sizes were found by looking at
    them; an index that is older than one of them is made anew. Safe with many processes: a complete folder appears at
    once, by renaming. Where the cache cannot be written, the parsed index is used as it is; so is one of which an
    image was missing, since it may be there next time.
    """
    key = hashlib.sha256(repr((FORMAT, tuple(settings), file_state(sources))).encode())
    folder = cache_folder() / "index" / key.hexdigest()[:32]
    if folder.is_dir():
        try:
            index = load(folder)
            if images is None or index.images == image_state(images(index)):
                return index
        except (OSError, ValueError, KeyError, EOFError):
            # Half deleted or damaged from outside.
            pass
        shutil.rmtree(folder, ignore_errors=True)
    index = parse()
    if any(fault.kind in MISSING for fault in index.faults):
        return index
    if images is not None:
        index = replace(index, images=image_state(images(index)))
    try:
        store(index, folder)
        return load(folder)
    except OSError:
        return index


def file_state(files: Iterable[Path]) -> str:
    """A hash of path, size and times of these files or folders; of a few files, of their content too.

    Times alone miss what happens within one tick of the clock. Of a large file, blocks all over it are read.
    """
    files = list(files)
    digest = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat()
            digest.update(f"{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0".encode())
            if len(files) <= FEW_FILES and S_ISREG(stat.st_mode):
                with open(file, "rb") as stream:
                    for place in range(0, stat.st_size, max(BLOCK, stat.st_size // BLOCKS)):
                        stream.seek(place)
                        digest.update(stream.read(BLOCK))
        except OSError as error:
            raise DatasetError(f"cannot be read: {error.strerror}", file=file) from error
    return digest.hexdigest()


def image_paths(index: Index, folder: Path) -> list[str]:
    """The image files of an index whose names are relative to a folder."""
    return [os.path.join(folder, name) for name in index.annotations.image_files.tolist()]


def image_state(files: Iterable[str]) -> str:
    """A hash of sizes and times of image files; one that is not there counts as such."""
    numbers = array("q")
    for file in files:
        try:
            stat = os.stat(file)
            numbers.extend((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        except (OSError, ValueError):
            numbers.extend((-1, -1, -1))
    return hashlib.sha256(numbers).hexdigest()


def store(index: Index, folder: Path) -> None:
    """Write an index as one ``.npy`` file a column and ``index.json``. The folder appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        arrays: dict[str, np.ndarray] = {}
        _flatten("", index.annotations, arrays)
        for name, values in arrays.items():
            np.save(work / f"{name}.npy", values, allow_pickle=False)
        about = {
            "columns": sorted(arrays),
            "box_format": index.annotations.box_format,
            "classes": index.classes,
            "category_ids": index.category_ids,
            "fingerprint": index.fingerprint,
            "images": index.images,
            "faults": [[getattr(fault, f.name) for f in fields(fault)] for fault in index.faults],
        }
        (work / "index.json").write_text(json.dumps(about), encoding="utf-8")
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load(folder: Path) -> Index:
    """Open what ``store`` wrote; arrays are memory mapped."""
    about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    columns: dict[str, Any] = {}
    for name in about["columns"]:
        file = folder / f"{name}.npy"
        try:
            # A plain view of the map: indexing a memmap object is several times slower.
            columns[name] = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        except ValueError:
            # An empty array cannot be mapped.
            columns[name] = np.load(file, allow_pickle=False)
    parts: dict[str, Any] = {name: values for name, values in columns.items() if "." not in name}
    for name, kind in (
        ("image_files", Texts),
        ("segments", Segments),
        ("neg_labels", Ragged),
        ("not_exhaustive_labels", Ragged),
    ):
        members = {f.name: columns[f"{name}.{f.name}"] for f in fields(kind) if f"{name}.{f.name}" in columns}
        if members:
            parts[name] = kind(**members)
    return Index(
        annotations=Annotations(**parts, box_format=about["box_format"]),
        classes=tuple(about["classes"]),
        category_ids=tuple(about["category_ids"]),
        fingerprint=about["fingerprint"],
        images=about["images"],
        faults=tuple(Fault(*values) for values in about["faults"]),
        folder=folder,
    )


def file_hash(files: Iterable[Path]) -> str:
    """SHA-256 of the content of files, in order."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _flatten(prefix: str, part: Any, arrays: dict[str, np.ndarray]) -> None:
    for f in fields(part):
        value = getattr(part, f.name)
        if isinstance(value, np.ndarray):
            arrays[prefix + f.name] = value
        elif isinstance(value, Texts | Segments | Ragged):
            _flatten(f"{prefix}{f.name}.", value, arrays)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers ``starts[i] .. starts[i] + lengths[i] - 1`` of all i in one array."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def _usable(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M,) bool: at least one pixel wide and high inside the image of (H, W), where that is known."""
    limits = np.where(sizes[:, :1] > 0, sizes[:, [1, 0, 1, 0]], np.inf)
    inside = np.clip(boxes, 0, limits)
    return np.all(inside[:, 2:] - inside[:, :2] >= 1, axis=1)


def _iterate(rows: Ragged) -> Iterable[np.ndarray]:
    return (rows[i] for i in range(len(rows)))


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _no_segments(count: int) -> Segments:
    zeros = np.zeros(count + 1, np.int64)
    return Segments(
        np.arange(count), np.zeros(count, np.uint8), zeros, zeros[:1], np.zeros(0), zeros, np.zeros(0, np.uint8)
    )


def _concatenate_ragged(parts: Sequence[Ragged]) -> Ragged:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    # The coordinates of a large file are not copied for nothing.
    filled = [part.values for part in parts if len(part.values)]
    return Ragged(filled[0] if len(filled) == 1 else np.concatenate(filled or [parts[0].values]), _offsets(lengths))


def _concatenate_segments(parts: Sequence[Segments]) -> Segments:
    if len(parts) == 1:
        return parts[0]
    shifts = np.cumsum([0] + [len(part.kinds) for part in parts])
    points = _concatenate_ragged([Ragged(part.coordinates, part.point_offsets) for part in parts])
    rle = _concatenate_ragged([Ragged(part.rle_bytes, part.rle_offsets) for part in parts])
    return Segments(
        rows=np.concatenate([part.rows + shift for part, shift in zip(parts, shifts)]),
        kinds=np.concatenate([part.kinds for part in parts]),
        polygon_offsets=_offsets(np.concatenate([np.diff(part.polygon_offsets) for part in parts])),
        point_offsets=points.offsets,
        coordinates=points.values,
        rle_offsets=rle.offsets,
        rle_bytes=rle.values,
    )
