"""What labelme, VGG Image Annotator (VIA) and CVAT write.

labelme: one JSON file an image, ``{"imagePath": ..., "shapes": [{"label", "points", "shape_type"}, ...]}``.
VIA: one JSON file, ``{"<name><size>": {"filename", "regions": [{"shape_attributes", "region_attributes"}]}}``, alone or
under ``_via_img_metadata`` of a project; or CSV with one region a row and these attributes as JSON in its columns.
CVAT for images 1.1: one XML file with ``<image name width height>`` and boxes, polygons, masks and ellipses in it.
"""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .errors import DatasetError
from .index import file_state
from .listing import (
    SPLIT_FOLDERS,
    ListedDataset,
    Listing,
    by_split_folder,
    find_image,
    in_order,
    split_of_file,
)
from .reading import read_bytes
from .tables import image_folders

CIRCLE_POINTS = 32


class LabelMe(ListedDataset):
    """A folder of labelme files, scored by the COCO protocol."""

    layout: ClassVar[str] = "labelme"
    names_occur: ClassVar[bool] = True

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        if root.is_file():
            return {"": [root]} if is_labelme(root) else {}
        folders = by_split_folder(root, lambda folder: bool(labelme_files(folder)))
        if folders:
            return {split: labelme_files(folder) for split, folder in folders.items()}
        files = labelme_files(root)
        return {"": files} if files else {}

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        return file_state(sources)

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        listing = Listing(root if root.is_dir() else root.parent)
        for file in sources:
            content = read_json(file)
            if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
                listing.fault("not a labelme file", file, expected="shapes")
                continue
            folders = list(dict.fromkeys([file.parent, *image_folders(listing.root, file)]))
            stated = str(content.get("imagePath") or file.stem)
            image = find_image(stated, folders) or find_image(file.stem, folders)
            size = content.get("imageHeight"), content.get("imageWidth")
            if image is None:
                listing.fault("image is missing", file, found=stated)
                continue
            whole = all(isinstance(edge, int) and edge > 0 for edge in size)
            place = listing.image(image, size if whole else None)  # type: ignore[arg-type]
            if place is None:
                continue
            for number, shape in enumerate(content["shapes"], 1):
                _labelme_shape(listing, place, file, f"shape {number}", shape)
        return listing


def _labelme_shape(listing: Listing, place: int, file: Path, where: str, shape: Any) -> None:
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        label, kind = str(shape["label"]), str(shape.get("shape_type", "polygon"))
    except (KeyError, TypeError, ValueError):
        listing.fault("not a shape", file, where, found=shape, expected="label and points")
        return
    if kind == "rectangle" and len(points) >= 2:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        listing.object(place, label, file=file, where=where, box=(min(xs), min(ys), max(xs), max(ys)))
    elif kind == "circle" and len(points) == 2:
        radius = math.dist(points[0], points[1])
        listing.object(place, label, file=file, where=where, polygons=[ellipse(points[0], radius, radius)])
    elif kind in ("polygon", "rotation", "oriented_rectangle") and len(points) >= 3:
        polygon = [value for point in points for value in point]
        listing.object(place, label, file=file, where=where, polygons=[polygon])
    else:
        listing.fault("shape without area", file, where, found=kind, expected="rectangle, polygon or circle")


def labelme_files(folder: Path) -> list[Path]:
    """The labelme files of a folder, or of its folder of annotations."""
    for place in (folder, folder / "annotations", folder / "labels", folder / "images"):
        if place.is_dir():
            files = [file for file in sorted(place.glob("*.json")) if is_labelme(file)]
            if files:
                return files
    return []


def is_labelme(file: Path) -> bool:
    """Whether the head or the end of a JSON file looks like labelme's."""
    with open(file, "rb") as stream:
        head = stream.read(4096)
        stream.seek(max(0, file.stat().st_size - 4096))
        tail = stream.read()
    return file.suffix == ".json" and b'"shapes"' in head + tail and (b'"imagePath"' in head + tail)


class Via(ListedDataset):
    """A file of the VGG Image Annotator, scored by the COCO protocol; root: the file, or a folder with one a split.

    The class of a region is its attribute ``class``, ``label``, ``name``, ``type`` or ``category``, or the only one.
    """

    layout: ClassVar[str] = "via"
    names_occur: ClassVar[bool] = True

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        if root.is_file():
            return {"": root} if is_via(root) else {}
        found: dict[str, Path] = {}
        patterns = ("*.json", "*.csv", "*/*.json", "*/*.csv")
        for file in (file for pattern in patterns for file in sorted(root.glob(pattern))):
            if is_via(file):
                found.setdefault(split_of_file(file, root) or "", file)
        return in_order(found)

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        return file_state([sources])

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        listing = Listing(root if root.is_dir() else root.parent)
        content = via_rows(sources) if sources.suffix == ".csv" else read_json(sources)
        entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
        folders = image_folders(listing.root, sources)
        for key, entry in entries.items():
            if not isinstance(entry, dict) or "filename" not in entry:
                listing.fault("not an image entry", sources, key, found=entry, expected="filename and regions")
                continue
            image = find_image(str(entry["filename"]), folders)
            if image is None:
                listing.fault("image is missing", sources, key, found=entry["filename"])
                continue
            place = listing.image(image)
            regions = entry.get("regions", [])
            regions = list(regions.values()) if isinstance(regions, dict) else regions
            for number, region in enumerate(regions if place is not None else [], 1):
                _via_region(listing, place, sources, f"{entry['filename']} region {number}", region)  # type: ignore[arg-type]
        return listing


def via_rows(file: Path) -> dict[str, Any]:
    """A CSV file of VIA as its JSON would be. Raises DatasetError where a row cannot be read."""
    entries: dict[str, Any] = {}
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as stream:
        rows = csv.DictReader(stream)
        try:
            for row in rows:
                name = row["filename"]
                entry = entries.setdefault(name, {"filename": name, "regions": []})
                shape = json.loads(row["region_shape_attributes"] or "{}")
                # An image without regions has one row.
                if shape:
                    attributes = json.loads(row.get("region_attributes") or "{}")
                    entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
        except (ValueError, TypeError, KeyError, RecursionError, csv.Error) as error:
            where = f"line {rows.line_num}"
            raise DatasetError("not a row of a region", file=file, where=where, found=str(error)) from error
    return entries


def _via_region(listing: Listing, place: int, file: Path, where: str, region: Any) -> None:
    try:
        shape, attributes = region["shape_attributes"], region.get("region_attributes", {})
        kind, label = shape["name"], _via_label(attributes)
        if kind == "rect":
            x, y, w, h = (float(shape[key]) for key in ("x", "y", "width", "height"))
            listing.object(place, label, file=file, where=where, box=(x, y, x + w, y + h))
        elif kind in ("polygon", "polyline"):
            xs, ys = shape["all_points_x"], shape["all_points_y"]
            polygon = [float(value) for pair in zip(xs, ys, strict=True) for value in pair]
            listing.object(place, label, file=file, where=where, polygons=[polygon])
        elif kind in ("circle", "ellipse"):
            centre = float(shape["cx"]), float(shape["cy"])
            rx, ry = float(shape.get("rx", shape.get("r", 0))), float(shape.get("ry", shape.get("r", 0)))
            polygon = ellipse(centre, rx, ry, float(shape.get("theta", 0)))
            listing.object(place, label, file=file, where=where, polygons=[polygon])
        else:
            listing.fault("shape without area", file, where, found=kind, expected="rect, polygon, circle or ellipse")
    except (KeyError, TypeError, ValueError, AttributeError):
        listing.fault("not a region", file, where, found=region)


def _via_label(attributes: dict[str, Any]) -> str:
    names = {key.lower(): value for key, value in attributes.items()}
    value = next((names[key] for key in ("class", "label", "name", "type", "category") if key in names), None)
    if value is None:
        value = next(iter(names.values())) if len(names) == 1 else "object"
    if isinstance(value, dict):
        # A checkbox: the one that is ticked.
        value = next((key for key, ticked in value.items() if ticked), "object")
    return str(value)


def is_via(file: Path) -> bool:
    """Whether the head of a JSON or CSV file looks like VIA's."""
    with open(file, "rb") as stream:
        head = stream.read(1 << 16)
    if file.suffix == ".csv":
        first = head.partition(b"\n")[0]
        return b"region_shape_attributes" in first and b"filename" in first
    return b'"_via_img_metadata"' in head or (b'"regions"' in head and b'"filename"' in head)


class Cvat(ListedDataset):
    """A file of "CVAT for images 1.1", scored by the COCO protocol; root: the XML file, or the folder that holds it.

    Splits are CVAT's subsets. ``occluded`` and attributes are passed over; tracks of "CVAT for video" are not read.
    """

    layout: ClassVar[str] = "cvat"
    names_occur: ClassVar[bool] = True

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        file = root if root.is_file() else root / "annotations.xml"
        if not file.is_file() or not is_cvat(file):
            return {}
        tree = read_xml(file)
        subsets = {image.get("subset") or "" for image in tree.iter("image")}
        named = {SPLIT_FOLDERS.get(subset.lower(), subset): (file, subset) for subset in sorted(subsets)}
        return in_order(named) if len(named) > 1 else {"": (file, None)}

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        return file_state([sources[0]]) + str(sources[1])

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        file, subset = sources
        tree = read_xml(file)
        labels = [name for element in tree.iter("label") if (name := (element.findtext("name") or "").strip())]
        listing = Listing(root if root.is_dir() else root.parent, list(dict.fromkeys(labels)) or None)
        folders = image_folders(listing.root, file)
        inner = [entry for folder in folders if folder.name == "images" for entry in sorted(folder.iterdir())]
        inner = [entry for entry in inner if entry.is_dir() and entry not in folders]
        subsets = {image.get("subset") or "" for image in tree.iter("image")}
        for element in tree.iter("image"):
            own = element.get("subset") or ""
            if subset is not None and own != subset:
                continue
            name = element.get("name") or ""
            # Images of a subset may lie in a folder of its name, and be named alike in several.
            of_subset = [folder for folder in inner if folder.name == own]
            places = [*of_subset, *(folder for folder in (*folders, *inner) if folder.name not in subsets - {own})]
            image = find_image(name, places)
            if image is None:
                listing.fault("image is missing", file, f"image {element.get('id')}", found=name)
                continue
            try:
                size = int(element.get("height", "")), int(element.get("width", ""))
            except ValueError:
                size = None
            place = listing.image(image, size)
            for number, shape in enumerate(element if place is not None else [], 1):
                _cvat_shape(listing, place, file, f"image {name} shape {number}", shape)  # type: ignore[arg-type]
        return listing


def _cvat_shape(listing: Listing, place: int, file: Path, where: str, shape: ElementTree.Element) -> None:
    label = shape.get("label") or ""
    try:
        if shape.tag == "box":
            x1, y1, x2, y2 = (float(shape.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
            turned = float(shape.get("rotation", "0") or 0)
            if turned:
                polygon = rotated((x1, y1, x2, y2), turned)
                listing.object(place, label, file=file, where=where, polygons=[polygon])
            else:
                listing.object(place, label, file=file, where=where, box=(x1, y1, x2, y2))
        elif shape.tag == "polygon":
            points = [float(value) for pair in shape.get("points", "").split(";") for value in pair.split(",")]
            listing.object(place, label, file=file, where=where, polygons=[points])
        elif shape.tag == "ellipse":
            centre = float(shape.get("cx", "")), float(shape.get("cy", ""))
            polygon = ellipse(centre, float(shape.get("rx", "")), float(shape.get("ry", "")))
            listing.object(place, label, file=file, where=where, polygons=[polygon])
        elif shape.tag == "mask":
            mask = _cvat_mask(shape, listing.sizes[place])
            listing.object(place, label, file=file, where=where, mask=mask)
        elif shape.tag not in ("tag", "points", "polyline", "attribute"):
            listing.fault("shape is not read", file, where, found=shape.tag, expected="box, polygon, mask, ellipse")
    except ValueError:
        listing.fault("not a shape", file, where, found=dict(shape.attrib))


def _cvat_mask(shape: ElementTree.Element, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of the image: runs of background and object by turns, row by row through the mask's own rectangle.

    Raises ValueError where they do not fill it, or it is not inside the image.
    """
    left, top, w, h = (int(shape.get(key, "")) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in shape.get("rle", "").split(",")]
    inside = left >= 0 and top >= 0 and w > 0 and h > 0 and left + w <= size[1] and top + h <= size[0]
    if not inside or min(runs) < 0 or sum(runs) != w * h:
        raise ValueError("not a mask")
    mask = np.zeros(size, bool)
    mask[top : top + h, left : left + w] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w)
    return mask


def is_cvat(file: Path) -> bool:
    """Whether the head of an XML file looks like CVAT's."""
    with open(file, "rb") as stream:
        head = stream.read(1 << 14)
    return b"<annotations>" in head and (b"<image " in head or b"<meta>" in head)


def read_json(file: Path) -> Any:
    """A JSON file. Raises DatasetError where it is none."""
    try:
        return json.loads(read_bytes(file).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DatasetError("not readable as JSON", file=file, found=str(error)) from error


def read_xml(file: Path) -> ElementTree.Element:
    """An XML file without entities of its own, which could be made to grow without end. Raises DatasetError."""
    content = read_bytes(file)
    if b"<!ENTITY" in content or b"<!DOCTYPE" in content:
        raise DatasetError("XML with a document type is not read", file=file)
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DatasetError("not readable as XML", file=file, found=str(error)) from error


def ellipse(centre: Sequence[float], rx: float, ry: float, theta: float = 0.0) -> list[float]:
    """An ellipse as a polygon of 32 points; theta: of its first axis, in radians."""
    polygon = []
    for step in range(CIRCLE_POINTS):
        angle = 2 * math.pi * step / CIRCLE_POINTS
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        polygon += [
            centre[0] + x * math.cos(theta) - y * math.sin(theta),
            centre[1] + x * math.sin(theta) + y * math.cos(theta),
        ]
    return polygon


def rotated(box: Sequence[float], degrees: float) -> list[float]:
    """The corners of a box turned clockwise about its centre."""
    x1, y1, x2, y2 = box
    cx, cy, angle = (x1 + x2) / 2, (y1 + y2) / 2, math.radians(degrees)
    polygon = []
    for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
        dx, dy = x - cx, y - cy
        polygon += [cx + dx * math.cos(angle) - dy * math.sin(angle), cy + dx * math.sin(angle) + dy * math.cos(angle)]
    return polygon
