"""Supervisely: a folder with ``meta.json`` and, for each of its datasets, images in ``img`` and annotations in ``ann``.

::

    meta.json   train/img/a.png   train/ann/a.png.json   val/img/...

An annotation is ``{"size": {"height", "width"}, "objects": [{"classTitle", "geometryType", "points" or "bitmap"}]}``;
rectangles, polygons (with holes) and bitmaps are read. Datasets named like splits are splits, others are one.
Format: https://docs.supervisely.com/data-organization/supervisely-annotation-format
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from .annotation_tools import read_json
from .errors import DatasetError
from .index import Index, file_state
from .listing import ListedDataset, Listing, find_image, folder_state, in_order, split_of
from .masks import MAX_SIDE

META = "meta.json"


class Supervisely(ListedDataset):
    """A project of Supervisely, scored by the COCO protocol; root: the folder of ``meta.json``."""

    layout: ClassVar[str] = "supervisely"

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        if not (root / META).is_file():
            return {}
        found: dict[str, list[Path]] = {}
        for folder in sorted(
            {file.parent.parent for pattern in ("ann", "*/ann") for file in root.glob(f"{pattern}/*.json")}
        ):
            found.setdefault((split_of(folder.name) if folder != root else None) or "", []).append(folder)
        return in_order(found)

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        folders = [folder / inner for folder in sources for inner in ("ann", "img") if (folder / inner).is_dir()]
        return file_state([root / META]) + folder_state(folders)

    @classmethod
    def looked_at(cls, folder: Path, index: Index) -> Iterable[str]:
        # ``state`` covers the folders of images.
        return ()

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        try:
            names = [str(one["title"]) for one in read_json(root / META)["classes"]]
        except (KeyError, TypeError) as error:
            raise DatasetError("not a list of classes", file=root / META, field="classes", expected="titles") from error
        listing = Listing(root, list(dict.fromkeys(names)))
        for folder in sources:
            for file in sorted((folder / "ann").glob("*.json")):
                image = find_image(file.stem, [folder / "img"])
                if image is None:
                    listing.fault("image is missing", file, found=file.stem)
                    continue
                try:
                    content = read_json(file)
                    size, objects = (int(content["size"]["height"]), int(content["size"]["width"])), content["objects"]
                    if not (0 < size[0] <= MAX_SIDE and 0 < size[1] <= MAX_SIDE) or not isinstance(objects, list):
                        raise ValueError(size)
                except (KeyError, TypeError, ValueError, OverflowError):
                    listing.fault("not an annotation", file, expected="size and objects")
                    continue
                place = listing.image(image, size)
                for number, entry in enumerate(objects if place is not None else [], 1):
                    _add(listing, place, file, f"object {number}", entry)  # type: ignore[arg-type]
        return listing


def _add(listing: Listing, place: int, file: Path, where: str, entry: Any) -> None:
    """Adds one object."""
    try:
        name, kind = str(entry["classTitle"]), entry["geometryType"]
        if kind == "bitmap":
            mask = _bitmap(entry["bitmap"], listing.sizes[place])
            listing.object(place, name, file=file, where=where, mask=mask)
            return
        rings = [entry["points"]["exterior"], *entry["points"].get("interior", [])]
        outer, *holes = [[(float(x), float(y)) for x, y in ring] for ring in rings]
        if kind == "rectangle":
            (x1, y1), (x2, y2) = outer
            box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            listing.object(place, name, file=file, where=where, box=box)
        elif kind == "polygon" and not holes:
            polygon = [value for point in outer for value in point]
            listing.object(place, name, file=file, where=where, polygons=[polygon])
        elif kind == "polygon":
            mask = np.zeros(listing.sizes[place], np.uint8)
            for ring, value in ((outer, 1), *((hole, 0) for hole in holes)):
                cv2.fillPoly(mask, [np.round(np.array(ring)).astype(np.int32)], value)
            listing.object(place, name, file=file, where=where, mask=mask.astype(bool))
        elif kind not in ("point", "polyline", "graph"):
            listing.fault("shape is not read", file, where, found=kind, expected="rectangle, polygon or bitmap")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, cv2.error, zlib.error):
        listing.fault("not an object", file, where, found=entry)


def _bitmap(bitmap: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: a PNG, deflated and in base64, whose corner lies at ``origin``. Raises ValueError."""
    inflated = zlib.decompressobj().decompress(base64.b64decode(bitmap["data"]), 1 << 26)
    part = cv2.imdecode(np.frombuffer(inflated, np.uint8), cv2.IMREAD_UNCHANGED) if inflated else None
    if part is None:
        raise ValueError("not a picture")
    part = part[..., -1] if part.ndim == 3 else part
    (x, y), (h, w) = map(int, bitmap["origin"]), part.shape
    if x < 0 or y < 0 or y + h > size[0] or x + w > size[1]:
        raise ValueError("outside of the image")
    mask = np.zeros(size, bool)
    mask[y : y + h, x : x + w] = part > 0
    return mask
