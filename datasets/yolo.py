"""YOLO: a text file of normalized boxes, polygons or oriented boxes beside every image.

Layouts that are recognized::

    data.yaml  images/train/a.jpg  labels/train/a.txt  images/val/...      (Ultralytics)
    data.yaml  train/images/a.jpg  train/labels/a.txt  valid/...           (Roboflow)
    obj.data  obj.names  train.txt  obj_train_data/a.jpg  a.txt            (Darknet)
    classes.txt  images/a.jpg  labels/a.txt                                (Label Studio, labelImg)
    images/train/a.jpg  labels/train/a.txt, or train/images/  train/labels/   (nothing names the classes: numbers)

A line is ``class cx cy w h``, ``class x1 y1 x2 y2 x3 y3 ...`` (a polygon; four corners are an oriented box), all in
shares of the image. A pose label is ``class cx cy w h`` and the key points that ``kpt_shape`` of the YAML file counts;
the box is read, the key points are not. An image without a label file has no objects.
Format: https://docs.ultralytics.com/datasets/detect/
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from .errors import DatasetError
from .index import Index
from .listing import (
    IMAGE_SUFFIXES,
    SPLIT_FOLDERS,
    ListedDataset,
    Listing,
    by_split_folder,
    folder_state,
    images_in,
    in_order,
    is_number,
)


@dataclass(frozen=True)
class Part:
    """One split: its class names, and its images as folders or as a list of files.

    others: parts whose classes are counted with these, where nothing names them. key_points: how many numbers of key
    points stand after each box.
    """

    names: tuple[str, ...] | None
    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    description: Path | None = None
    others: tuple[Part, ...] = ()
    key_points: int = 0

    def images(self) -> list[Path]:
        """The image files in order."""
        return [file for folder in self.folders for file in images_in(folder)] + list(self.files)


class Yolo(ListedDataset):
    """A dataset in YOLO format, scored by the COCO protocol; root: the folder, or its YAML file."""

    layout: ClassVar[str] = "yolo"

    @classmethod
    def parts(cls, root: Path) -> dict[str, Part]:
        described = root if root.is_file() else description(root)
        if described is not None:
            parts = _described(described) if described.suffix in (".yaml", ".yml") else _darknet(described)
            return _counted_together(parts)
        names = _names_file(root)
        folders = by_split_folder(root / "images", _labelled) if (root / "images").is_dir() else {}
        folders = folders or by_split_folder(root, lambda folder: _labelled(folder / "images") or _labelled(folder))
        if folders:
            inner = {k: f / "images" if _has_images(f / "images") else f for k, f in folders.items()}
            return _counted_together({split: Part(names, (folder,)) for split, folder in inner.items()})
        for folder in (root / "images", root, root / "obj_train_data"):
            if _labelled(folder):
                return {"": Part(names, (folder,))}
        return {}

    @classmethod
    def state(cls, root: Path, sources: Part) -> str:
        read = (sources, *sources.others)
        folders = [folder for part in read for folder in (*part.folders, *{file.parent: 0 for file in part.files})]
        folders += [labels_folder(folder) for folder in folders]
        present = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
        listed = hashlib.sha256(repr([part.files for part in read]).encode(errors="surrogateescape")).hexdigest()
        return f"{sources.names}{sources.key_points}{listed}{folder_state(present)}"

    @classmethod
    def looked_at(cls, folder: Path, index: Index) -> Iterable[str]:
        # All of them are in folders that ``state`` covers.
        return ()

    @classmethod
    def notices(cls, root: Path, sources: Part) -> list[str]:
        told = []
        if sources.names is None:
            told.append(
                "nothing names the classes, so that they are called by their numbers; a data.yaml with `names`, or a "
                "classes.txt, names them"
            )
        if sources.key_points:
            told.append("key points are left out (kpt_shape); the boxes are read")
        return told

    @classmethod
    def read(cls, root: Path, sources: Part) -> Listing:
        base = root if root.is_dir() else root.parent
        images = sources.images()
        if not images:
            raise DatasetError("no images in this split", file=root, found=[str(f) for f in sources.folders])
        entries = list(zip(images, label_files(images)))
        names = sources.names
        if names is None:
            labels = [label for part in (sources, *sources.others) for label in label_files(part.images())]
            numbers = {line.split()[0] for label in labels for line in _lines(label) if line.split()}
            numbers = {number for number in numbers if number.isdigit()}
            names = tuple(str(i) for i in range(max(map(int, numbers), default=-1) + 1))
        listing = Listing(base, names)
        for file, label in entries:
            place = listing.image(file)
            if place is None:
                continue
            for number, line in enumerate(_lines(label), 1):
                if line.strip():
                    _object(listing, place, label, number, line.split(), names, sources.key_points)
        return listing


def _counted_together(parts: dict[str, Part]) -> dict[str, Part]:
    """The splits, each knowing the others where nothing names the classes: all have the same classes."""
    if all(part.names is not None for part in parts.values()):
        return parts
    return {
        split: replace(part, others=tuple(other for name, other in parts.items() if name != split))
        for split, part in parts.items()
    }


def _object(
    listing: Listing, place: int, file: Path, number: int, words: list[str], names: Sequence[str], key_points: int
) -> None:
    """Adds the object of one line."""
    where = f"line {number}"
    try:
        label, values = int(float(words[0])), [float(word) for word in words[1:]]
    except ValueError:
        listing.fault("not numbers", file, where, found=" ".join(words))
        return
    if float(words[0]) != label or not 0 <= label < len(names):
        listing.fault("unknown class", file, where, found=words[0], expected=f"0..{len(names) - 1}")
        return
    h, w = listing.sizes[place]
    if key_points and len(values) == 4 + key_points:
        values = values[:4]
    if len(values) in (4, 5):
        # A fifth number is a score, in files of predictions.
        cx, cy, bw, bh = values[:4]
        if bw < 0 or bh < 0:
            listing.fault("box with negative size", file, where, found=" ".join(words))
            return
        box = ((cx - bw / 2) * w, (cy - bh / 2) * h, (cx + bw / 2) * w, (cy + bh / 2) * h)
        listing.object(place, names[label], file=file, where=where, box=box)
    elif not key_points and len(values) >= 6 and len(values) % 2 == 0:
        polygon = [value * (w, h)[i % 2] for i, value in enumerate(values)]
        listing.object(place, names[label], file=file, where=where, polygons=[polygon])
    else:
        kind, expected = "neither a box nor a polygon", "4, or 6 and more"
        if key_points:
            kind, expected = "neither a box nor a box with key points", f"4, or {4 + key_points} by kpt_shape"
        listing.fault(kind, file, where, found=f"{len(values)} numbers", expected=expected)


def description(root: Path) -> Path | None:
    """The file that describes a YOLO folder, if it has one."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (root / name).is_file():
            return root / name
    for pattern in ("*.yaml", "*.yml"):
        found = [file for file in sorted(root.glob(pattern)) if _describes(file)]
        if len(found) == 1:
            return found[0]
    return next((file for file in sorted(root.glob("*.data")) if "names" in file.read_text(errors="replace")), None)


def _describes(file: Path) -> bool:
    text = file.read_text(errors="replace")
    return "names:" in text and ("train:" in text or "val:" in text)


def _described(file: Path) -> dict[str, Part]:
    """Splits of a YAML file: folders, lists of files, or lists of either; ``path`` may be of another machine."""
    content = read_yaml(file)
    names = _names(content.get("names"), file, content.get("nc"))
    key_points = _key_points(content.get("kpt_shape"), file)
    bases = [file.parent]
    if isinstance(content.get("path"), str):
        stated = Path(content["path"])
        bases = [stated if stated.is_absolute() else file.parent / stated, file.parent, file.parent / stated.name]
    parts = {}
    for key, value in content.items():
        split = SPLIT_FOLDERS.get(str(key).lower())
        if split is None or value in (None, ""):
            continue
        folders: list[Path] = []
        files: list[Path] = []
        for one in value if isinstance(value, list) else [value]:
            place = _located(str(one), bases)
            if place is None:
                raise DatasetError(
                    "no such folder or list", file=file, field=str(key), found=one, expected="below path"
                )
            if place.is_dir():
                folders += _image_folders(place)
            else:
                files += _listed(place)
        parts[split] = Part(names, tuple(folders), tuple(files), file, key_points=key_points)
    return in_order(parts)


def _key_points(shape: Any, file: Path) -> int:
    """How many numbers the key points of an object are: ``kpt_shape`` is their count, and 2 or 3 numbers each."""
    if shape is None:
        return 0
    whole = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)
    if not whole or shape[1] not in (2, 3):
        raise DatasetError("not a shape of key points", file=file, field="kpt_shape", found=shape, expected="[17, 3]")
    return shape[0] * shape[1]


def _located(stated: str, bases: Iterable[Path]) -> Path | None:
    """The folder or file of a split: as stated, else without the leading parts that only fit another machine."""
    path = Path(stated.replace("\\", "/"))
    for base in bases:
        parts = [part for part in path.parts if part not in ("..", "/", ".")]
        tails = [Path(*parts[start:]) for start in range(len(parts))]
        for candidate in (path if path.is_absolute() else base / path, *(base / tail for tail in tails)):
            if candidate.exists():
                return candidate
    return None


def _image_folders(place: Path) -> list[Path]:
    """The folders with images at or below a place; an ``images`` folder before all others."""
    if (place / "images").is_dir() and not _has_images(place):
        place = place / "images"
    return [folder for folder in sorted(_folders(place)) if _has_images(folder)] or [place]


def _folders(place: Path) -> Iterator[Path]:
    """A folder and all below it, without collecting their files: there may be a hundred thousand."""
    yield place
    with os.scandir(place) as entries:
        inner = [entry for entry in entries if entry.is_dir()]
    for entry in inner:
        # Links may lead back up.
        yield from [Path(entry.path)] if entry.is_symlink() else _folders(Path(entry.path))


def _listed(file: Path) -> list[Path]:
    """The images of a list, one a line, relative to the list's folder or to the working folder of who wrote it."""
    files = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.strip():
            place = _located(line.strip(), [file.parent, file.parent.parent])
            if place is None:
                raise DatasetError("image of the list is missing", file=file, found=line.strip())
            files.append(place)
    return files


def _darknet(file: Path) -> dict[str, Part]:
    """Splits of a Darknet ``obj.data`` file."""
    content: dict[str, str] = {}
    for line in file.read_text(errors="replace").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            content[key.strip()] = value.strip()
    place = _located(content.get("names", "obj.names"), [file.parent])
    names = None if place is None else _read_names(place)
    parts = {}
    for key, split in (("train", "train"), ("valid", "val"), ("test", "test")):
        listed = _located(content[key], [file.parent]) if key in content else None
        if listed is not None:
            parts[split] = Part(names, (), tuple(_listed(listed)), file)
    return parts


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file as plain data. Raises DatasetError where it is none."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise DatasetError("reading YAML needs PyYAML: pip install pyyaml", file=file) from error
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8", errors="replace"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DatasetError("not readable as YAML", file=file, found=str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise DatasetError("not a description of a dataset", file=file, found=type(content).__name__)
    return content


def _names(given: Any, file: Path, count: Any) -> tuple[str, ...] | None:
    """Class names of a list, or of a mapping from label to name."""
    if isinstance(given, dict):
        try:
            numbered = {int(key): str(value) for key, value in given.items()}
        except (TypeError, ValueError) as error:
            raise DatasetError(
                "not class names", file=file, field="names", found=given, expected="label: name"
            ) from error
        if sorted(numbered) != list(range(len(numbered))):
            raise DatasetError(
                "labels with gaps", file=file, field="names", found=sorted(numbered), expected="0, 1, 2 ..."
            )
        given = [numbered[i] for i in range(len(numbered))]
    if given is None:
        return tuple(map(str, range(int(count)))) if isinstance(count, int) else None
    if not isinstance(given, list) or not given:
        raise DatasetError("not class names", file=file, field="names", found=given, expected="a list or a mapping")
    names = tuple(map(str, given))
    if len(set(names)) < len(names):
        raise DatasetError("class names are not unique", file=file, field="names", found=names)
    if isinstance(count, int) and count != len(names):
        raise DatasetError("the number of classes differs", file=file, field="nc", found=count, expected=len(names))
    return names


def _names_file(root: Path) -> tuple[str, ...] | None:
    for name in ("classes.txt", "obj.names", "labels.txt"):
        for folder in (root, root / "labels"):
            if (folder / name).is_file():
                return _read_names(folder / name)
    return None


def _read_names(file: Path) -> tuple[str, ...]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    return tuple(line for line in lines if line)


def labels_folder(images: Path) -> Path:
    """Where the label files of a folder of images lie: ``images`` replaced by ``labels`` where it comes last."""
    parts = list(images.parts)
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] == "images":
            candidate = Path(*parts[:place], "labels", *parts[place + 1 :])
            return candidate if candidate.is_dir() else images
    beside = images / "labels"
    return beside if beside.is_dir() else images


def label_files(images: Sequence[Path]) -> list[Path]:
    """The label file of each image, whether it is there or not."""
    folders = {folder: labels_folder(folder) for folder in {image.parent for image in images}}
    return [folders[image.parent] / f"{image.stem}.txt" for image in images]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _has_images(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries)


def _labelled(folder: Path) -> bool:
    """Whether any image of a folder has a label file of numbers."""
    if not _has_images(folder):
        return False
    images = {file.rpartition(".")[0] for file in os.listdir(folder) if file.lower().endswith(IMAGE_SUFFIXES)}
    with os.scandir(labels_folder(folder)) as entries:
        labels = (Path(entry) for entry in entries if entry.name.endswith(".txt") and entry.name[:-4] in images)
        first = next((line.split() for file in labels for line in _lines(file) if line.strip()), None)
    return first is not None and len(first) >= 5 and all(is_number(word) for word in first)
