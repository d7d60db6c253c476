"""Datasets whose images lie inside larger files: tar shards (WebDataset) and Parquet (Hugging Face's layouts).

A shard holds, under one key, an image and a JSON of its objects: ``000001.jpg``, ``000001.json`` with
``{"objects": {"bbox": [[x, y, w, h], ...], "category": [...]}}``, or a list of ``{"bbox", "category"}``, or
``{"boxes", "labels"}``; ``classes.txt`` beside it names the labels.

A Parquet file has a column ``image`` (bytes, a path, or a struct of both) and a struct ``objects`` with ``bbox``
(x, y, width, height in pixels) and ``category`` (label or name), as of the ``datasets`` package's object detection.
Class names stand in the file's metadata (features), in ``classes.txt`` beside it, or are the numbers.

An image folder of ``datasets`` has a ``metadata.jsonl`` beside the images, or one a split: a line is
``{"file_name": ..., "objects": {"bbox": ..., "category": ...}}`` with the same ``objects``.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from PIL import Image

from .errors import DatasetError
from .index import Index, file_state
from .listing import ListedDataset, Listing, by_split_folder, in_order, split_of_file
from .reading import decode_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class PackedDataset(ListedDataset):
    """A dataset whose images are read from inside its files; an image's file is ``shard::member``."""

    has_files: ClassVar[bool] = False
    pattern: ClassVar[str] = ""
    names_occur: ClassVar[bool] = True

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        return _by_split(root, cls.pattern)

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        return file_state([*sources, *_class_files(root)])

    @classmethod
    def looked_at(cls, folder: Path, index: Index) -> Iterable[str]:
        return ()

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        names = next((found for file in sources if (found := cls.class_names(file))), None) or _class_list(root)
        listing = Listing(root if root.is_dir() else root.parent, names or None)
        for file in sources:
            cls.add(listing, file, names)
        return listing

    @classmethod
    def class_names(cls, file: Path) -> Sequence[str]:
        """The names of the labels, where a file says them itself."""
        return ()

    @classmethod
    def add(cls, listing: Listing, file: Path, names: Sequence[str]) -> None:
        """Adds the images and objects of a file; names: of the labels, none where they are not known."""
        raise NotImplementedError

    def pixels(self, index: int, size: tuple[int, int] | None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of an image."""
        name = self.annotations.image_files[index]
        shard, _, member = name.partition("::")
        return decode_image(self.content(self.image_root / shard, member), f"{self.image_root / shard}::{member}", size)

    @classmethod
    def content(cls, shard: Path, member: str) -> bytes:
        """The bytes of an image inside a file."""
        raise NotImplementedError


class Shards(PackedDataset):
    """Tar shards in the WebDataset convention, scored by the COCO protocol; root: a ``.tar`` file or their folder."""

    layout: ClassVar[str] = "webdataset"
    pattern: ClassVar[str] = "*.tar"

    @classmethod
    def add(cls, listing: Listing, file: Path, names: Sequence[str]) -> None:
        for key, members in _groups(file):
            image = next((suffix for suffix in SUFFIXES if suffix in members), None)
            if image is None:
                listing.fault("sample without image", file, key, found=sorted(members), expected=SUFFIXES)
                continue
            size, name = members[image]
            stored = f"{file.relative_to(listing.root).as_posix()}::{name}"
            place = listing.image(file, size, _id_of(key), stored)
            if place is None:
                continue
            for number, (box, label) in enumerate(_objects(members.get(".json"), listing, file, key), 1):
                where = f"{key} object {number}"
                listing.object(place, _name_of(label, names), file=file, where=where, box=box)

    @classmethod
    def content(cls, shard: Path, member: str) -> bytes:
        offset, _, rest = member.partition("+")
        length, _, _ = rest.partition("@")
        with open(shard, "rb") as stream:
            stream.seek(int(offset))
            return stream.read(int(length))


def _groups(shard: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The samples of a shard: image members as (size, place in the file), JSON members as what they say."""
    groups: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, suffix = file.partition(".")
                suffix = f".{suffix.lower()}"
                if suffix not in (*SUFFIXES, ".json"):
                    continue
                content = archive.extractfile(member).read()  # type: ignore[union-attr]
                group = groups.setdefault(f"{folder}/{stem}" if folder else stem, {})
                if suffix == ".json":
                    group[suffix] = json.loads(content)
                else:
                    group[suffix] = (_size_of(content), f"{member.offset_data}+{member.size}@{file}")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DatasetError("not a readable shard", file=shard, found=str(error)) from error
    yield from groups.items()


def _objects(told: Any, listing: Listing, shard: Path, key: str) -> list[tuple[tuple[float, ...], Any]]:
    """Boxes and labels of a sample's JSON, in any of the ways that people write them."""
    if told is None:
        return []
    entries = told.get("objects", told.get("annotations", told)) if isinstance(told, dict) else told
    try:
        if isinstance(entries, dict):
            boxes = entries.get("bbox", entries.get("bboxes", entries.get("boxes", [])))
            labels = entries.get("category", entries.get("categories", entries.get("labels", entries.get("class"))))
            form = "corners" if "boxes" in entries and "bbox" not in entries else "size"
        else:
            boxes = [entry["bbox"] for entry in entries]
            labels = [next(entry[name] for name in LABELS if name in entry) for entry in entries]
            form = "size"
        if len(boxes) != len(labels or []):
            raise ValueError(f"{len(boxes)} boxes and {len(labels or [])} labels")
        return [(_corners(box, form), label) for box, label in zip(boxes, labels or [])]
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        listing.fault("not a list of objects", shard, key, found=str(error) or entries)
        return []


LABELS = ("category", "category_name", "label", "class", "name", "category_id")


def _corners(box: Sequence[float], form: str) -> tuple[float, float, float, float]:
    a, b, c, d = map(float, box)
    return (a, b, c, d) if form == "corners" else (a, b, a + c, b + d)


class Parquet(PackedDataset):
    """Parquet files of object detection, scored by the COCO protocol; root: a ``.parquet`` file or their folder."""

    layout: ClassVar[str] = "parquet"
    pattern: ClassVar[str] = "*.parquet"

    @classmethod
    def looked_at(cls, folder: Path, index: Index) -> Iterable[str]:
        # A row may name a file beside its table.
        named = (name.partition("::") for name in index.annotations.image_files.tolist())
        outside = ((shard, member.partition("@")[2]) for shard, _, member in named)
        return (str((folder / shard).parent / path) for shard, path in outside if path)

    @classmethod
    def class_names(cls, file: Path) -> Sequence[str]:
        return _features(file)

    @classmethod
    def add(cls, listing: Listing, file: Path, names: Sequence[str]) -> None:
        relative = file.relative_to(listing.root).as_posix()
        row = 0
        for batch in _parquet(file).iter_batches(batch_size=64):
            for entry in batch.to_pylist():
                _parquet_row(listing, file, relative, row, entry, names)
                row += 1

    @classmethod
    def content(cls, shard: Path, member: str) -> bytes:
        row, _, path = member.partition("@")
        if path:
            return (shard.parent / path).read_bytes()
        table, wanted = _parquet(shard), int(row)
        for group in range(table.metadata.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            if wanted < count:
                column = table.read_row_group(group, columns=["image"]).column("image")
                return _image_of(column[wanted].as_py(), shard)[0]
            wanted -= count
        raise DatasetError("no such row", file=shard, found=row)


def _parquet_row(listing: Listing, file: Path, relative: str, row: int, entry: dict, names: Sequence[str]) -> None:
    where = f"row {row}"
    try:
        content, path = _image_of(entry.get("image"), file)
    except (DatasetError, OSError) as error:
        listing.fault("row without image", file, where, found=str(error))
        return
    size = entry.get("height"), entry.get("width")
    if not all(isinstance(edge, int) and edge > 0 for edge in size):
        size = _size_of(content)
    given = entry.get("image_id", entry.get("id"))
    image_id = given if isinstance(given, (int, str)) else (Path(path).stem if path else row)
    stored = f"{relative}::{row}@{'' if _has_bytes(entry['image']) else path}"
    place = listing.image(file, size, image_id, stored)  # type: ignore[arg-type]
    if place is None:
        return
    _row_objects(listing, place, file, where, entry, names)


def _row_objects(
    listing: Listing, place: int, file: Path, where: str, entry: Mapping[str, Any], names: Sequence[str]
) -> None:
    """Adds the ``objects`` of a row."""
    try:
        objects = _as_columns(entry.get("objects") or {})
        boxes = [_corners(box, "size") for box in objects.get("bbox") or []]
        labels = _labels(objects)
        optional = [objects.get(name) or [None] * len(boxes) for name in ("id", "iscrowd", "ignore", "segmentation")]
        if len(labels) != len(boxes):
            listing.fault("boxes without label", file, where, found=f"{len(boxes)} boxes and {len(labels)} labels")
            return
        rows = list(zip(boxes, labels, *optional, strict=True))
    except (AttributeError, TypeError, ValueError) as error:
        listing.fault("not a list of objects", file, where, found=str(error), expected="bbox and category")
        return
    for number, (box, label, annotation_id, crowd, ignore, polygons) in enumerate(rows, 1):
        listing.object(
            place,
            _name_of(label, names),
            file=file,
            where=f"{where} object {number}",
            box=box,
            polygons=polygons,
            annotation_id=annotation_id,
            crowd=bool(crowd),
            ignore=bool(ignore),
        )


def _as_columns(objects: Any) -> Mapping[str, Any]:
    """Objects as a list for each field, of such lists or of one mapping an object."""
    if isinstance(objects, Mapping):
        return objects
    return {key: [one.get(key) for one in objects] for key in objects[0]}


def _labels(objects: Mapping[str, Any]) -> Sequence[Any]:
    return next((objects[name] for name in (*LABELS, "categories", "labels") if name in objects), [])


class ImageFolder(ListedDataset):
    """An image folder of Hugging Face's ``datasets`` with objects, scored by the COCO protocol; root: the folder."""

    layout: ClassVar[str] = "imagefolder"

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        if root.is_file():
            return {"": (root, (root,))} if _is_metadata(root) else {}
        for place in (root, root / "data"):
            folders = by_split_folder(place, lambda folder: _is_metadata(folder / METADATA)) if place.is_dir() else {}
            if folders:
                files = tuple(folder / METADATA for folder in folders.values())
                return {split: (folder / METADATA, files) for split, folder in folders.items()}
        file = root / METADATA
        return {"": (file, (file,))} if _is_metadata(file) else {}

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        return str(sources[0]) + file_state([*sources[1], *_class_files(root)])

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        base = root if root.is_dir() else root.parent
        file, files = sources
        # The classes are those of all splits.
        names = _class_list(root) or _metadata_classes(files)
        listing = Listing(base, names)
        for number, entry in _metadata(file):
            where = f"line {number}"
            stated = entry.get("file_name") if isinstance(entry, dict) else None
            if not isinstance(stated, str) or not stated:
                listing.fault("not a line of an image", file, where, found=entry, expected="file_name and objects")
                continue
            if Path(stated).is_absolute() or ".." in Path(stated).parts:
                listing.fault("an image outside of the dataset", file, where, found=stated)
                continue
            given = entry.get("image_id")
            place = listing.image(file.parent / stated, None, given if isinstance(given, (int, str)) else None)
            if place is not None:
                _row_objects(listing, place, file, where, entry, names)
        return listing


METADATA = "metadata.jsonl"


def _is_metadata(file: Path) -> bool:
    """Whether the first line of a file names an image and its objects."""
    if not file.is_file() or file.suffix != ".jsonl":
        return False
    with open(file, "rb") as stream:
        head = stream.readline(1 << 20)
    return b'"file_name"' in head and b'"objects"' in head


def _metadata(file: Path) -> Iterator[tuple[int, Any]]:
    """The lines of a file by their number; what is no JSON comes as its text."""
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    yield number, line


def _metadata_classes(files: Sequence[Path]) -> list[str]:
    """The class names that occur, in alphabetical order; 0, 1, 2 ... where they are numbers."""
    found: set[str] = set()
    for entry in (entry for file in files for _, entry in _metadata(file)):
        try:
            found |= set(map(str, _labels(_as_columns(entry["objects"] or {}))))
        except (AttributeError, KeyError, TypeError):
            # Told when the line is read.
            continue
    if found and all(name.isdigit() and len(name) < 6 for name in found):
        return [str(label) for label in range(max(map(int, found)) + 1)]
    return sorted(found)


def _has_bytes(image: Any) -> bool:
    return isinstance(image, bytes) or (isinstance(image, Mapping) and image.get("bytes") is not None)


def _image_of(image: Any, file: Path) -> tuple[bytes, str]:
    """Content and path of an ``image`` value."""
    if isinstance(image, bytes):
        return image, ""
    if isinstance(image, str):
        image = {"path": image}
    if isinstance(image, Mapping) and image.get("bytes") is not None:
        return image["bytes"], str(image.get("path") or "")
    path = Path(str((image or {}).get("path") or ""))
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise DatasetError("an image outside of the dataset", file=file, field="image", found=str(path))
    return (file.parent / path).read_bytes(), str(path)


def _parquet(file: Path) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise ImportError("reading Parquet needs pyarrow: pip install 'detection-sdk[parquet]'") from error
    try:
        return parquet.ParquetFile(file)
    except Exception as error:
        raise DatasetError("not readable as Parquet", file=file, found=str(error)) from error


def _features(file: Path) -> list[str]:
    """Class names of the features that Hugging Face's ``datasets`` writes into the metadata."""
    metadata = _parquet(file).schema_arrow.metadata or {}
    try:
        text = json.loads(metadata.get(b"huggingface", b"{}"))
    except ValueError:
        return []

    def names(value: Any) -> list[str]:
        if isinstance(value, dict):
            if isinstance(value.get("names"), list):
                return [str(name) for name in value["names"]]
            return next((found for one in value.values() if (found := names(one))), [])
        return next((found for one in value if (found := names(one))), []) if isinstance(value, list) else []

    return names(text)


def _by_split(root: Path, pattern: str) -> dict[str, list[Path]]:
    """Files by the split that their name or folder says."""
    if root.is_file() and root.suffix != pattern[1:]:
        return {}
    files = [root] if root.is_file() else [*sorted(root.glob(pattern)), *sorted(root.glob(f"*/{pattern}"))]
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(split_of_file(file, root) or "", []).append(file)
    return in_order(found)


def _class_files(root: Path) -> list[Path]:
    """The list of class names beside the data, where there is one."""
    file = (root if root.is_dir() else root.parent) / "classes.txt"
    return [file] if file.is_file() else []


def _class_list(root: Path) -> list[str]:
    lines = [line for file in _class_files(root) for line in file.read_text(encoding="utf-8").splitlines()]
    return [line.strip() for line in lines if line.strip()]


def _name_of(label: Any, names: Sequence[str]) -> str:
    """The name of a label, which may be a number into the names."""
    return names[int(label)] if str(label).isdigit() and int(label) < len(names) else str(label)


def _id_of(key: str) -> Any:
    return int(key) if key.isdigit() and str(int(key)) == key else key


def _size_of(content: bytes) -> tuple[int, int] | None:
    """(H, W) of an image in memory as it is shown, or none where it is no image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = image.height, image.width
            orientation = image.getexif().get(0x0112, 1) if image.format == "JPEG" else 1
            return (size[1], size[0]) if orientation >= 5 else size
    except (OSError, ValueError, SyntaxError):
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        return None if decoded is None else (decoded.shape[0], decoded.shape[1])
