"""What annotation tools write, as columns: images and objects by name, splits as folders.

Adapters of this kind say which files belong to which split, and how their entries are read; everything else, classes,
cache, faults, splits, is here.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .adapter import IndexedDataset, OnFault, Splits, fingerprint_of, settle_faults, with_classes, with_present_images
from .errors import DatasetError, DatasetWarning, Fault
from .index import Builder, Index, cached, image_paths
from .masks import area, bounding_box, check_polygons, check_rle, encode, encode_polygons
from .reading import image_header

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders and lists that mean a split."""


class Listing:
    """Collects images and objects of one split; class names may be given in order, or be those that occur."""

    def __init__(self, root: Path, classes: Sequence[str] | None = None) -> None:
        self.root, self.builder, self.faults = root, Builder(), []
        self.fixed = None if classes is None else list(classes)
        self.names: dict[str, int] = {} if classes is None else {name: i for i, name in enumerate(classes)}
        self.sizes: list[tuple[int, int]] = []
        self.ids: set[Any] = set()
        self.masks = False
        self._objects: list[tuple] = []

    def image(
        self,
        path: Path | str,
        size: tuple[int, int] | None = None,
        image_id: Any = None,
        stored: str | None = None,
    ) -> int | None:
        """Adds an image of (H, W), by default what its header says; none, and a fault, where that cannot be read.

        path: of the file, below the root or absolute. image_id: by default the file's name without ending, or the path
        below the root where that is taken. stored: what the columns name instead of the file, of images inside others.
        """
        path = Path(path)
        file = path if path.is_absolute() else self.root / path
        if size is None:
            try:
                (h, w), orientation = image_header(file)
            except DatasetError as error:
                self.fault(error.problem, file)
                return None
            size = (w, h) if orientation >= 5 else (h, w)
        relative = file.relative_to(self.root) if file.is_relative_to(self.root) else file
        name = relative.stem if image_id is None else image_id
        if name in self.ids and image_id is None:
            name = relative.as_posix()
        if name in self.ids:
            self.fault("duplicate image id", file, found=name)
            return None
        self.ids.add(name)
        self.sizes.append(size)
        return self.builder.image(name, size, stored or relative.as_posix())

    def object(
        self,
        image: int,
        name: str,
        *,
        file: Path,
        where: str,
        box: Sequence[float] | None = None,
        polygons: Sequence[Sequence[float]] | None = None,
        mask: np.ndarray | None = None,
        ignore: bool = False,
        crowd: bool = False,
        annotation_id: Any = None,
    ) -> None:
        """Adds an object by (x1, y1, x2, y2), by polygons in pixels, or by its mask, (H, W) bool of the whole image; a
        fault where none can be used."""
        size = self.sizes[image]
        counts = None
        if mask is not None:
            if mask.shape != size or not mask.any():
                self.fault("mask is empty or of another size", file, where, found=mask.shape, expected=size)
                return
            rle = encode(mask)
            counts, box = check_rle(rle, size), bounding_box(rle)
        if polygons:
            try:
                polygons = check_polygons([list(map(float, polygon)) for polygon in polygons], size)
            except (DatasetError, TypeError, ValueError) as error:
                self.fault("not a polygon", file, where, found=str(getattr(error, "problem", error)))
                return
            if box is None:
                xs = [x for polygon in polygons for x in polygon[0::2]]
                ys = [y for polygon in polygons for y in polygon[1::2]]
                box = (min(xs), min(ys), max(xs), max(ys))
        if box is None or len(box) != 4 or not np.isfinite(np.asarray(box, np.float64)).all():
            self.fault("box is not four numbers", file, where, found=box)
            return
        x1, y1, x2, y2 = map(float, box)
        if x2 < x1 or y2 < y1:
            self.fault("box with exchanged ends", file, where, found=box)
            return
        if self.fixed is not None and name not in self.names:
            self.fault("unknown class", file, where, found=name, expected=self.fixed)
            return
        label = self.names.setdefault(name, len(self.names))
        self.masks = self.masks or bool(polygons) or counts is not None
        self._objects.append((annotation_id, image, (x1, y1, x2, y2), label, ignore, crowd, polygons, counts))

    def fault(
        self, kind: str, file: object, where: str | None = None, *, found: object = None, expected: object = None
    ) -> None:
        """Notes what cannot be used."""
        shown = None if found is None else f"{found!r:.200}"
        wanted = None if expected is None else f"{expected!r:.200}"
        self.faults.append(Fault(kind, str(file), where, None, shown, wanted))

    def index(self) -> Index:
        """The columns; classes that were not given come in alphabetical order, numbers by their value."""
        order = in_label_order(self.names) if self.fixed is None else self.fixed
        labels = {self.names[name]: place for place, name in enumerate(order)}
        for number, (given, image, box, label, ignore, crowd, polygons, counts) in enumerate(self._objects, 1):
            x1, y1, x2, y2 = box
            whole = [list(polygon) for polygon in polygons] if polygons else None
            covered = (x2 - x1) * (y2 - y1)
            if whole:
                covered = float(area(encode_polygons(whole, self.sizes[image])))
            elif counts is not None:
                covered = float(area({"size": list(self.sizes[image]), "counts": counts}))
            self.builder.annotation(
                number if given is None else given,
                image,
                box=box,
                stated=(x1, y1, x2 - x1, y2 - y1),
                label=labels[label],
                area=covered,
                ignore=ignore or crowd,
                crowd=crowd,
                polygons=whole,
                counts=counts,
            )
        annotations = self.builder.finish(masks=self.masks)
        classes = tuple(order)
        return Index(
            annotations=annotations,
            classes=classes,
            category_ids=tuple(range(1, len(classes) + 1)),
            fingerprint=fingerprint_of(annotations, classes),
            faults=tuple(self.faults),
        )


class ListedDataset(IndexedDataset):
    """A folder or file of one of these layouts.

    root: the folder or file. split: ``train``, ``val``, ``test`` or another that it has. Without it, one with several
    opens as its first split and carries the others as ``.train``, ``.val``, ``.test``. classes: keep these only, in
    this order. on_fault: ``raise``, ``skip`` or ``repair`` what cannot be used.

    Raises DatasetError naming file, object and field.
    """

    layout: ClassVar[str] = ""

    def __init__(
        self,
        root: str | Path,
        *,
        split: str | None = None,
        classes: Sequence[str] | None = None,
        on_fault: OnFault = "raise",
    ) -> None:
        # Absolute, for what is read names files both below the root and by whole paths.
        root = Path(root).absolute()
        if not root.exists():
            raise DatasetError("dataset is missing", file=root)
        parts = self.parts(root)
        if not parts:
            raise DatasetError(f"not a dataset in {self.layout} layout", file=root)
        splits = None
        if split is None and len(parts) > 1:
            open_split = partial(type(self), root, classes=classes, on_fault=on_fault)
            splits = Splits(list(parts), open_split, first=self)
        chosen = next(iter(parts)) if split is None else split
        if chosen not in parts:
            known = " or ".join(name for name in parts if name) or "none, there are no splits"
            raise DatasetError("no such split", file=root, field="split", found=split, expected=known)
        sources = parts[chosen]
        folder = root if root.is_dir() else root.parent
        index = self._one_class_list(root, parts, chosen) if self.names_occur else self._split(root, parts, chosen)
        index = with_classes(settle_faults(index, on_fault, root), classes, root)
        if self.has_files:
            index = with_present_images(index, folder, on_fault)
        for notice in self.notices(root, sources):
            warnings.warn(f"{root}: {notice}", DatasetWarning, stacklevel=3)
        super().__init__(index=index, image_root=folder, splits=splits)

    has_files: ClassVar[bool] = True
    names_occur: ClassVar[bool] = False
    """Whether the classes of a split are those that occur on its objects."""

    @classmethod
    def _split(cls, root: Path, parts: Mapping[str, Any], split: str) -> Index:
        """The index of one split."""
        sources, folder = parts[split], root if root.is_dir() else root.parent
        return cached(
            [root] if root.is_file() else [],
            (cls.layout, str(folder.resolve()), split, cls.state(root, sources)),
            lambda: cls.read(root, sources).index(),
            partial(cls.looked_at, folder),
        )

    @classmethod
    def _one_class_list(cls, root: Path, parts: Mapping[str, Any], split: str) -> Index:
        """The index of one split with the classes that occur in any of them."""
        index = cls._split(root, parts, split)
        found = [index.classes, *(cls._split(root, parts, other).classes for other in parts if other != split)]
        if all(names == index.classes for names in found):
            return index
        classes = in_label_order({name for names in found for name in names})
        if index.folder is None:
            return recounted(index, classes)
        made_of = (str(index.folder), index.fingerprint, index.images)
        return cached([], (*made_of, classes), lambda: recounted(index, classes))

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        """Sources of each split by its name; ``""`` where there are no splits."""
        raise NotImplementedError

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        """What decides over the content: names, sizes and times of the files; a cache of another state is not used."""
        raise NotImplementedError

    @classmethod
    def looked_at(cls, folder: Path, index: Index) -> Iterable[str]:
        """The image files whose sizes were read, which ``state`` does not cover."""
        return image_paths(index, folder)

    @classmethod
    def notices(cls, root: Path, sources: Any) -> list[str]:
        """What is said whenever a split is opened: what was not told, and what is left out."""
        return []

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        """Reads the entries of one split."""
        raise NotImplementedError


def in_label_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in alphabetical order; numbers by their value, where all are."""
    names = list(names)
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=int) if numbers else sorted(names))


def recounted(index: Index, classes: Sequence[str]) -> Index:
    """The index with its labels counted in another class list, which holds at least those names that occur."""
    labels = [classes.index(name) if name in classes else -1 for name in index.classes]
    annotations = index.annotations.relabel(np.array(labels, np.int64))
    return replace(
        index,
        annotations=annotations,
        classes=tuple(classes),
        category_ids=tuple(range(1, len(classes) + 1)),
        fingerprint=fingerprint_of(annotations, classes),
        folder=None,
    )


def folder_state(folders: Iterable[Path]) -> str:
    """A hash of names, sizes and times of all files directly in these folders.

    Names are taken in the folder's own order, which stays while nothing changes.
    """
    digest = hashlib.sha256()
    for folder in folders:
        names, numbers = [str(folder)], array("q")
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    stat = entry.stat()
                except OSError:
                    # A link to nowhere.
                    continue
                names.append(entry.name)
                numbers.extend((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        # Names need not be valid text.
        digest.update("\0".join(names).encode(errors="surrogateescape"))
        digest.update(numbers)
    return digest.hexdigest()


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, in alphabetical order."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES)]
    return [folder / name for name in sorted(names)]


def by_split_folder(root: Path, holds: Callable[[Path], bool]) -> dict[str, Path]:
    """The folders below ``root`` that are named like splits and hold what is wanted, by split."""
    found = {}
    for name in sorted(entry.name for entry in root.iterdir() if entry.is_dir()):
        split = SPLIT_FOLDERS.get(name.lower())
        if split is not None and holds(root / name):
            found[split] = root / name
    return in_order(found)


def split_of(name: str) -> str | None:
    """The split that a folder's name means: ``train2017`` and ``Train`` are ``train``; none for other names."""
    return SPLIT_FOLDERS.get(re.sub(r"[-_ ]?\d+$", "", name.lower()))


def split_of_file(file: Path, root: Path | None = None) -> str | None:
    """The split that a word of a file's name means, else the name of its folder, where that is not ``root`` itself."""
    words = re.split("[-_. ]", file.stem)
    found = (split_of(word) for word in (*words, *([] if file.parent == root else [file.parent.name])))
    return next((split for split in found if split is not None), None)


def of_other_split(folder: Path, split: str | None) -> bool:
    """Whether a folder belongs to another split by its name: an image of one split is never looked for there, since
    its name may stand for another image."""
    return split is not None and split_of(folder.name) not in (None, split)


def in_order(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Splits with train, val and test first."""
    first = [name for name in ("train", "val", "test") if name in parts]
    return {name: parts[name] for name in [*first, *(name for name in parts if name not in first)]}


def is_number(word: str) -> bool:
    """Whether a word of a text file is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def find_image(name: str, folders: Sequence[Path]) -> Path | None:
    """The image of a stated name: as a path below one of the folders, else by its last part, else by its stem."""
    stated = Path(name.replace("\\", "/"))
    if ".." in stated.parts:
        return None
    for folder in folders:
        for candidate in (folder / stated, folder / stated.name):
            if candidate.is_file():
                return candidate
    for folder in folders:
        for suffix in (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)):
            candidate = folder / f"{stated.stem}{suffix}"
            if candidate.is_file():
                return candidate
    return None
