"""What the adapters of this folder share: samples made from columns and image files."""

from __future__ import annotations

import copy
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from .amending import Amendments, apply_changes, read_amendments
from .base import ImageInfo, own_evaluator
from .errors import DatasetError, DatasetWarning
from .index import RLE, Annotations, Index, Ragged, Segments
from .masks import MixedMasks, PolygonMasks, RLEMasks
from .reading import read_image, read_map
from .sample import Masks, Sample
from .writing import Writable

OnFault = Literal["raise", "skip", "repair"]
# So many are put in order at once, so that memory does not hold all coordinates twice.
MASKS_AT_A_TIME = 1 << 16


class Splits(Mapping):
    """The splits of a dataset by name, each opened by ``open_split(split=name)`` when it is first asked for.

    first: the dataset that is the first split itself.
    """

    def __init__(self, names: Sequence[str], open_split: Callable[..., Any], *, first: Any) -> None:
        self._names, self._open, self._opened = tuple(names), open_split, {names[0]: first}

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._opened:
            self._opened[name] = self._open(split=name)
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Splits({', '.join(self._names)})"


class IndexedDataset(Writable):
    """A dataset made of annotation columns and image files; the adapters add how their folder is read.

    index: columns with class names. image_root: folder that the names of the images are relative to.
    splits: the other splits of the same folder, where there are any.
    semantic_files: by image, the file of its (H, W) uint8 class map, "" for none. proposals: by image, rows of
    x1, y1, x2, y2, score.
    """

    protocol = "coco"
    """Name of the scoring protocol: coco, lvis, voc, cityscapes or wider_face."""
    absolute_names = True
    """Whether images may be named by absolute paths to anywhere, as in lists that people make on their own machine.
    Annotation files that are handed on may not: what they name lies beside them."""

    def __init__(
        self,
        *,
        index: Index,
        image_root: Path,
        splits: Mapping[str, Any] | None = None,
        semantic_files: Sequence[Path] | None = None,
        proposals: Ragged | None = None,
    ) -> None:
        self._index = index
        self.image_root = image_root
        self.splits: Mapping[str, Any] = splits if splits is not None else {}
        self.semantic_files = semantic_files
        self.proposals = proposals
        self.amendments: tuple[dict[str, Any], ...] = ()

    def amended(self, *amendments: str | os.PathLike | Amendments) -> Self:
        """This dataset with changes of its annotations applied, in the order given; see ``datasets.amending``.

        Neither this dataset nor a file is changed. Of a dataset that carries splits, the split with the fingerprint of
        the changes is amended. The result has a fingerprint of its own and says in ``.amendments`` what was applied.

        Raises DatasetError where changes are for other annotations, or cannot be applied, naming file and change.
        """
        dataset = self
        for one in amendments:
            file = None if isinstance(one, Amendments) else Path(one)
            dataset = dataset._amended(one if isinstance(one, Amendments) else read_amendments(one), file)
        return dataset

    def _amended(self, given: Amendments, file: Path | None) -> Self:
        result = copy.copy(self)
        result.splits = {name: result if self.splits[name] is self else self.splits[name] for name in self.splits}
        if self.fingerprint == given.fingerprint:
            result._index = apply_changes(self.annotations, self.classes, self.category_ids, given.changes, file)
            vars(result).pop("_hash", None)
            authors = sorted({change.author for change in given.changes if change.author})
            about = {"file": None if file is None else file.name, "changes": len(given), "authors": authors}
            about |= {"applied_to": given.fingerprint, "fingerprint": result.fingerprint}
            result.amendments = (*self.amendments, about)
            return result
        for name in self.splits:
            if self.splits[name].fingerprint == given.fingerprint:
                result.splits |= {name: self.splits[name]._amended(given, file)}
                return result
        raise DatasetError(
            "the changes are for other annotations" + (", and so are those of every split" if self.splits else ""),
            file=file,
            field="fingerprint",
            found=given.fingerprint,
            expected=self.fingerprint,
        )

    @property
    def annotations(self) -> Annotations:
        """The ground truth as columns."""
        return self._index.annotations

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self._index.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Original id of each label."""
        return self._index.category_ids

    @property
    def faults(self):
        """What was wrong in the annotation files and left out or repaired."""
        return self._index.faults

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the annotations say; equal for equal annotations wherever they lie."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        return self._index.fingerprint or fingerprint_of(self.annotations, self.classes)

    @property
    def train(self) -> Any:
        """The training split, or none."""
        return self.splits.get("train")

    @property
    def val(self) -> Any:
        """The validation split, or none."""
        return self.splits.get("val")

    @property
    def test(self) -> Any:
        """The test split, or none."""
        return self.splits.get("test")

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def path(self, index: int) -> Path:
        """Where the image lies. Raises DatasetError for a name that leads out of the dataset, or an address."""
        index = _checked(index, len(self))
        name = self.annotations.image_files[index]
        path = self.image_root / name
        if ".." in name or "://" in name or (not self.absolute_names and Path(name).is_absolute()):
            where = f"image {_plain(self.annotations.image_ids[index])!r}"
            require_inside(self.image_root, name, where, absolute=self.absolute_names)
        return path

    def info(self, index: int) -> ImageInfo:
        """Size and labels of an image without decoding it."""
        index = _checked(index, len(self))
        columns = self.annotations
        rows = columns.rows(index)
        counted = columns.usable[rows] & ~columns.ignore[rows]
        return ImageInfo(
            image_id=_plain(columns.image_ids[index]),
            size=_size(columns, index),
            labels=columns.labels[rows][counted],
            path=str(self.path(index)),
        )

    def pixels(self, index: int, size: tuple[int, int] | None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of an image; adapters whose images lie inside larger files read them here."""
        return read_image(self.path(index), size)

    def __getitem__(self, index: int) -> Sample:
        index = _checked(index, len(self))
        columns, path = self.annotations, self.path(index)
        size = _size(columns, index)
        first = columns.rows(index).start
        rows = first + np.flatnonzero(columns.usable[columns.rows(index)])
        image = self.pixels(index, size if size != (0, 0) else None)
        size = image.shape[:2]
        limits = np.array([size[1], size[0], size[1], size[0]], np.float64)
        semantic = None
        if self.semantic_files is not None:
            semantic = read_map(self.semantic_files[index], size).astype(np.uint8)
        return Sample(
            image=image,
            boxes=np.clip(columns.boxes[rows], 0, limits).astype(np.float32),
            labels=columns.labels[rows],
            ignore=columns.ignore[rows],
            image_id=_plain(columns.image_ids[index]),
            path=path,
            masks=masks_of(columns, rows, size),
            semantic=semantic,
            proposals=None if self.proposals is None else self.proposals[index][:, :4].astype(np.float32),
        )

    def evaluator(self) -> Any:
        """The dataset's own scoring protocol."""
        return own_evaluator(self)


def masks_of(columns: Annotations, rows: np.ndarray, size: tuple[int, int]) -> Masks | None:
    """Lazy masks of the given annotations of one image of (H, W); none where the dataset has no masks."""
    if columns.segments is None:
        return None
    segments = columns.segments
    # An annotation without a mask counts as one without polygons.
    is_run = np.array([segments.kind(row) == RLE for row in rows], bool)
    polygons = PolygonMasks(tuple(tuple(segments.polygons(row)) for row in rows[~is_run]), size)
    runs = RLEMasks(tuple(segments.counts(row) for row in rows[is_run]), size)
    if not is_run.any():
        return polygons
    if is_run.all():
        return runs
    places = np.where(is_run, np.cumsum(is_run), np.cumsum(~is_run)) - 1
    return MixedMasks((polygons, runs), tuple(zip(is_run.astype(int).tolist(), places.tolist())))


def settle_faults(index: Index, on_fault: OnFault, file: object) -> Index:
    """Raise the first fault met in parsing, or warn how many annotations were left out; then say, also as a
    warning, which boxes training will not see."""
    if on_fault not in ("raise", "skip", "repair"):
        raise ValueError(f"on_fault: expected 'raise', 'skip' or 'repair', found {on_fault!r}")
    faults = index.faults
    if faults and on_fault == "raise":
        error = faults[0].error()
        error.add_note(
            f"the first of {len(faults)} fault(s) in these annotations; `sdk check` lists them all, and "
            "on_fault='skip' or 'repair' (--on-fault) goes on without them"
        )
        raise error
    if faults:
        done = "left out" if on_fault == "skip" else "left out or repaired in memory"
        warnings.warn(f"{len(faults)} fault(s) {done}; the first: {faults[0].error()}", DatasetWarning, stacklevel=4)
    columns = index.annotations
    unusable = len(columns) - int(np.count_nonzero(columns.usable))
    if unusable:
        first = int(np.argmin(columns.usable))
        warnings.warn(
            f"{file}: {unusable} of {len(columns)} annotations have no pixel inside their image and are left out of "
            f"training; the first: annotation {columns.annotation_ids[first]}, "
            f"field 'bbox', found {columns.stated_boxes[first].tolist()}",
            DatasetWarning,
            stacklevel=4,
        )
    return index


def require_inside(root: Path, name: str, where: str, *, absolute: bool = False) -> None:
    """Raises DatasetError where an image's name is an address, or leads out of the folder that holds ``root``.

    Folders beside ``root`` are inside: some tools write names such as ``../images/1.jpg``. Links are followed as they
    are. absolute: absolute names may lead anywhere.
    """
    if re.match(r"[a-z][a-z0-9+.-]*://", name, re.IGNORECASE):
        problem, expected = "image is named by an address", "a file: nothing is fetched"
    else:
        whole = Path(os.path.abspath(root))
        holder = whole if whole.parent == whole.parent.parent else whole.parent
        if (absolute and Path(name).is_absolute()) or Path(os.path.normpath(whole / name)).is_relative_to(holder):
            return
        problem, expected = "image lies outside the dataset", f"a path below {holder}"
    raise DatasetError(problem, file=root, where=where, field="file_name", found=name, expected=expected)


def with_present_images(index: Index, folder: Path, on_fault: OnFault) -> Index:
    """The index without the images that are not there, which is said in a warning, unless faults are to be raised:
    then a missing image is an error when it is read. Lets a part of a dataset be used with the annotations of all."""
    files = index.annotations.image_files
    if on_fault == "raise":
        return index
    present = np.array([(folder / files[i]).is_file() for i in range(len(files))], bool)
    if present.all():
        return index
    missing, first = len(files) - int(present.sum()), folder / files[int(np.argmin(present))]
    warnings.warn(
        f"{missing} of {len(files)} images are missing and left out; the first: {first}",
        DatasetWarning,
        stacklevel=3,
    )
    return with_images(index, np.flatnonzero(present))


def with_classes(index: Index, classes: Sequence[str] | None, file: object) -> Index:
    """The index with only these classes, in this order; images are kept. Raises DatasetError for unknown names."""
    if classes is None:
        return index
    if isinstance(classes, str):
        raise DatasetError("a list of class names is wanted", field="classes", found=classes, expected=f"[{classes!r}]")
    wanted = list(classes)
    unknown = [name for name in wanted if name not in index.classes]
    if unknown or not wanted or len(set(wanted)) < len(wanted):
        raise DatasetError(
            "classes are not a subset", file=file, field="classes", found=unknown or wanted, expected=index.classes
        )
    places = [index.classes.index(name) for name in wanted]
    labels = np.full(len(index.classes), -1, np.int64)
    labels[places] = np.arange(len(wanted))
    return replace(
        index,
        annotations=index.annotations.relabel(labels),
        classes=tuple(wanted),
        category_ids=tuple(index.category_ids[place] for place in places),
        fingerprint="",
        folder=None,
    )


def with_images(index: Index, images: np.ndarray) -> Index:
    """The index with only these images."""
    return replace(index, annotations=index.annotations.select(images), fingerprint="", folder=None)


def fingerprint_of(annotations: Annotations, classes: Sequence[str]) -> str:
    """SHA-256 over the columns and class names."""
    digest = hashlib.sha256("\0".join(classes).encode())
    for values in (annotations.image_ids, annotations.annotation_ids):
        digest.update("\0".join(map(str, values.tolist())).encode())
    columns = (
        annotations.image_sizes,
        annotations.image_offsets,
        annotations.stated_boxes,
        annotations.labels,
        annotations.ignore,
        annotations.crowd,
        annotations.areas,
    )
    for values in columns:
        digest.update(np.ascontiguousarray(values).data)
    if annotations.segments is not None:
        for values in _mask_arrays(annotations.segments):
            digest.update(values.data)
    return digest.hexdigest()


def _mask_arrays(segments: Segments) -> Iterator[np.ndarray]:
    """What the masks say, in row order and in pieces: kinds, offsets of polygons, coordinates, run lengths."""
    rows = segments.rows
    if len(rows) == len(segments.kinds) and np.array_equal(rows, np.arange(len(rows))):
        yield from (segments.kinds, segments.point_offsets, segments.coordinates, segments.rle_bytes)
        return
    polygons = Ragged(np.arange(len(segments.point_offsets) - 1), segments.polygon_offsets)
    points = Ragged(segments.coordinates, segments.point_offsets)
    runs = Ragged(segments.rle_bytes, segments.rle_offsets)
    order = polygons.take(rows).values
    yield segments.kinds[rows]
    yield np.concatenate([[0], np.cumsum(np.diff(segments.point_offsets)[order])]).astype(np.int64)
    yield from (points.take(order[i : i + MASKS_AT_A_TIME]).values for i in range(0, len(order), MASKS_AT_A_TIME))
    yield from (runs.take(rows[i : i + MASKS_AT_A_TIME]).values for i in range(0, len(rows), MASKS_AT_A_TIME))


def _checked(index: int, count: int) -> int:
    if not -count <= index < count:
        raise IndexError(f"image {index} of {count}")
    return int(index) % count


def _size(columns: Annotations, index: int) -> tuple[int, int]:
    h, w = columns.image_sizes[index]
    return int(h), int(w)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
