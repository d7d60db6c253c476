"""What labelling platforms export as one record an image: CreateML, Label Studio, Labelbox, and odgt.

CreateML (also Roboflow's and RectLabel's): a JSON list of ``{"image", "annotations": [{"label", "coordinates":
{"x", "y", "width", "height"}}]}``, x and y being the centre in pixels.
Label Studio: a JSON list of tasks, ``{"data": {"image": ...}, "annotations": [{"result": [{"value": ...}]}]}``, or its
short form (JSON-MIN); numbers are per cent of the image.
Labelbox: NDJSON, a line ``{"data_row", "media_attributes", "projects": {...: {"labels": [...]}}}`` an image.
odgt (CrowdHuman, Objects365): a line ``{"ID" or "fpath", "gtboxes": [{"tag", "fbox" or "box", "extra"}]}`` an image.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from .annotation_tools import ellipse, read_json
from .errors import DatasetError
from .index import file_state
from .listing import ListedDataset, Listing, find_image, in_order, split_of_file
from .reading import read_bytes
from .tables import image_folders

HEAD = 1 << 16
"""Bytes by which a file is recognized."""


@dataclass(frozen=True)
class Record:
    """One image: where the file speaks of it, names under which it may lie, its (H, W) where that is said, and its
    objects as they stand there."""

    where: str
    names: Sequence[str]
    objects: Sequence[Any]
    size: tuple[Any, Any] | None = None


class RecordFiles(ListedDataset):
    """Files of records, scored by the COCO protocol; root: a file, or a folder with one or more, perhaps by split."""

    names_occur: ClassVar[bool] = True
    patterns: ClassVar[tuple[str, ...]] = ("*.json", "*/*.json")

    @classmethod
    def is_one(cls, head: bytes) -> bool:
        """Whether a file that begins so is of this layout."""
        raise NotImplementedError

    @classmethod
    def records(cls, file: Path) -> Iterator[Record]:
        """The images of a file. What is no record raises KeyError, TypeError, ValueError or AttributeError."""
        raise NotImplementedError

    @classmethod
    def shapes(cls, entry: Any, size: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Class names and what ``Listing.object`` wants, of one object on an image of (H, W); raises like ``records``.

        Nothing for what is no object, such as a key point or a remark.
        """
        raise NotImplementedError

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        if root.is_file():
            return {"": [root]} if root.suffix in {Path(p).suffix for p in cls.patterns} and cls._fits(root) else {}
        found: dict[str, list[Path]] = {}
        for file in (file for pattern in cls.patterns for file in sorted(root.glob(pattern))):
            if cls._fits(file):
                found.setdefault(split_of_file(file, root) or "", []).append(file)
        return in_order(found)

    @classmethod
    def _fits(cls, file: Path) -> bool:
        if not file.is_file():
            return False
        with open(file, "rb") as stream:
            return cls.is_one(stream.read(HEAD).lstrip(b"\xef\xbb\xbf \t\r\n"))

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        return file_state(sources)

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        listing = Listing(root if root.is_dir() else root.parent)
        for file in sources:
            folders, where = image_folders(listing.root, file), "its first record"
            try:
                for record in cls.records(file):
                    where = f"what follows {record.where}"
                    cls._add(listing, file, folders, record)
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
                if isinstance(error, DatasetError):
                    raise
                listing.fault("not a record of an image", file, where, found=repr(error))
        return listing

    @classmethod
    def _add(cls, listing: Listing, file: Path, folders: Sequence[Path], record: Record) -> None:
        image = next((found for name in record.names if (found := find_image(name, folders))), None)
        if image is None:
            listing.fault("image is missing", file, record.where, found=list(record.names))
            return
        whole = record.size is not None and all(type(edge) is int and 0 < edge < 1 << 31 for edge in record.size)
        place = listing.image(image, record.size if whole else None)
        if place is None:
            return
        for number, entry in enumerate(record.objects, 1):
            where = f"{record.where} object {number}"
            try:
                for name, geometry in cls.shapes(entry, listing.sizes[place]):
                    listing.object(place, name, file=file, where=where, **geometry)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                problem = str(error) if type(error) is ValueError else ""
                listing.fault("not an object" + (f": {problem}" if problem else ""), file, where, found=entry)


class CreateMl(RecordFiles):
    """CreateML's JSON."""

    layout: ClassVar[str] = "createml"

    @classmethod
    def is_one(cls, head: bytes) -> bool:
        return head.startswith(b"[") and b'"coordinates"' in head and b'"image' in head

    @classmethod
    def records(cls, file: Path) -> Iterator[Record]:
        for number, entry in enumerate(read_json(file), 1):
            name = entry.get("image", entry.get("imagefilename"))
            objects = entry.get("annotations", entry.get("annotation")) or []
            yield Record(f"image {number} {name}", [_text(name)], _list(objects))

    @classmethod
    def shapes(cls, entry: Any, size: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        x, y, w, h = (float(entry["coordinates"][key]) for key in ("x", "y", "width", "height"))
        yield _text(entry["label"]), {"box": (x - w / 2, y - h / 2, x + w / 2, y + h / 2)}


class LabelStudio(RecordFiles):
    """Label Studio's own JSON, whole or short (its COCO, YOLO and VOC exports open as these)."""

    layout: ClassVar[str] = "label_studio"

    @classmethod
    def is_one(cls, head: bytes) -> bool:
        tasks = b'"data"' in head and b'"annotations"' in head and b'"result"' in head
        return head.startswith(b"[") and (tasks or b'"original_width"' in head)

    @classmethod
    def records(cls, file: Path) -> Iterator[Record]:
        for number, task in enumerate(read_json(file), 1):
            results: Any
            if "data" in task:
                done = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
                # Of several annotators the first counts.
                results = done[0]["result"] if done else []
                texts = [value for value in task["data"].values() if isinstance(value, str)]
            else:
                results = next((value for value in task.values() if _is_regions(value)), [])
                texts = [value for value in task.values() if isinstance(value, str)]
            sizes = [(one["original_height"], one["original_width"]) for one in results if "original_width" in one]
            # Of the texts of a task, the image is the one with the name of a file.
            names = [name for text in texts for name in upload_names(text)]
            yield Record(f"task {task.get('id', number)}", names, _list(results), sizes[0] if sizes else None)

    @classmethod
    def shapes(cls, entry: Any, size: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        value = entry.get("value", entry)
        kind = next((key for key in value if key.endswith("labels")), "")
        if kind in ("", "keypointlabels", "labels"):
            return
        h, w = size
        if kind == "rectanglelabels":
            x, y, bw, bh = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
            x, y, bw, bh, turn = x * w, y * h, bw * w, bh * h, math.radians(float(value.get("rotation") or 0))
            if turn:
                # About the corner that x and y name.
                across, down = (math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))
                steps = ((0, 0), (bw, 0), (bw, bh), (0, bh))
                corners = [(x + a * across[0] + b * down[0], y + a * across[1] + b * down[1]) for a, b in steps]
                geometry: dict[str, Any] = {"polygons": [[number for corner in corners for number in corner]]}
            else:
                geometry = {"box": (x, y, x + bw, y + bh)}
        elif kind == "polygonlabels":
            geometry = {
                "polygons": [[float(v) / 100 * (w, h)[i] for point in value["points"] for i, v in enumerate(point)]]
            }
        elif kind == "ellipselabels":
            x, y, rx, ry = (float(value[key]) / 100 for key in ("x", "y", "radiusX", "radiusY"))
            turn = math.radians(float(value.get("rotation") or 0))
            geometry = {"polygons": [ellipse((x * w, y * h), rx * w, ry * h, turn)]}
        else:
            raise ValueError(f"{kind} are not read; rectangles, polygons and ellipses are")
        for name in value[kind]:
            yield _text(name), geometry


class Labelbox(RecordFiles):
    """Labelbox's NDJSON."""

    layout: ClassVar[str] = "labelbox"
    patterns: ClassVar[tuple[str, ...]] = ("*.ndjson", "*.jsonl", "*/*.ndjson")

    @classmethod
    def is_one(cls, head: bytes) -> bool:
        return head.startswith(b"{") and b'"data_row"' in head and b'"projects"' in head

    @classmethod
    def records(cls, file: Path) -> Iterator[Record]:
        for number, entry in _lines(file):
            row, about = entry["data_row"], entry.get("media_attributes") or {}
            stated = (row.get("external_id"), row.get("global_key"), row.get("row_data"))
            names = [name for text in stated if isinstance(text, str) for name in upload_names(text)]
            labels = [label for project in entry["projects"].values() for label in project["labels"][:1]]
            objects = [one for label in labels for one in label["annotations"].get("objects", [])]
            yield Record(f"line {number}", names, objects, (about.get("height"), about.get("width")))

    @classmethod
    def shapes(cls, entry: Any, size: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        name = _text(entry.get("name", entry.get("value")))
        if "bounding_box" in entry:
            x, y, w, h = (float(entry["bounding_box"][key]) for key in ("left", "top", "width", "height"))
            yield name, {"box": (x, y, x + w, y + h)}
        elif "polygon" in entry:
            yield name, {"polygons": [[float(point[key]) for point in entry["polygon"] for key in ("x", "y")]]}
        elif "point" not in entry and "line" not in entry:
            raise ValueError("neither a box nor a polygon")


class Odgt(RecordFiles):
    """odgt, as of CrowdHuman: the full boxes; ``mask`` and what is marked ``ignore`` are ignored people."""

    layout: ClassVar[str] = "odgt"
    patterns: ClassVar[tuple[str, ...]] = ("*.odgt", "*/*.odgt")

    @classmethod
    def is_one(cls, head: bytes) -> bool:
        return head.startswith(b"{") and b'"gtboxes"' in head

    @classmethod
    def records(cls, file: Path) -> Iterator[Record]:
        for number, entry in _lines(file):
            name = _text(entry.get("fpath", entry.get("ID")))
            # An id may have a point in it, and has no suffix.
            names = [name] if "fpath" in entry else [f"{name}.jpg", name]
            yield Record(f"line {number}", names, _list(entry["gtboxes"]), (entry.get("height"), entry.get("width")))

    @classmethod
    def shapes(cls, entry: Any, size: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        x, y, w, h = map(float, entry["fbox"] if "fbox" in entry else entry["box"])
        name = _text(entry["tag"])
        ignored = name == "mask" or (entry.get("extra") or {}).get("ignore") in (1, True)
        yield "person" if name == "mask" else name, {"box": (x, y, x + w, y + h), "ignore": ignored, "crowd": ignored}


def upload_names(stated: str) -> list[str]:
    """What the file of an uploaded image may be called: platforms add their own folders, and eight digits in front."""
    place = unquote(stated.partition("?d=")[2] or stated.partition("?")[0])
    place = re.sub(r"^[a-z0-9+.-]+://", "", place, flags=re.IGNORECASE)
    name = Path(place).name
    own = re.sub(r"^[0-9a-f]{8}-", "", name)
    # Without a leading slash: what an export names lies in its own folder.
    return list(dict.fromkeys([place.lstrip("/"), name, own])) if Path(name).suffix else []


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    """The entries of a file of JSON lines by their number; raises ValueError for what is none."""
    for number, line in enumerate(read_bytes(file).splitlines(), 1):
        if line.strip():
            yield number, json.loads(line.decode("utf-8-sig"))


def _is_regions(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "original_width" in value[0]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"text is wanted, found {value!r:.80}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list is wanted, found {value!r:.80}")
    return value
