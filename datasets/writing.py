"""Datasets written out in the layouts that they are read from."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .base import DetectionDataset
from .errors import DatasetError, DatasetWarning
from .index import NO_SEGMENT, POLYGONS, Annotations, columns_of
from .showing import Shown

LAYOUTS = ("coco", "voc", "yolo", "parquet")


def _warn(lost: str) -> None:
    warnings.warn(f"not kept: {lost}", DatasetWarning, stacklevel=3)


def save(
    dataset: Any, folder: str | os.PathLike, layout: str = "coco", *, tell: Callable[[str], object] = _warn
) -> Path:
    """Writes a dataset, or all splits of one that carries several, with its images.

    The folder holds all of it in the end, or nothing where writing fails.

    Args:
        dataset: any DetectionDataset; ``train``, ``val`` and ``test`` are written where it carries them.
        folder: a new or empty folder.
        layout: ``coco`` (everything is kept), ``voc``, ``yolo`` or ``parquet``.
        tell: is given each of the ``losses``, before anything is written; warns where nothing else is said.

    Raises:
        DatasetError: when the folder holds something, or the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise DatasetError("no such layout to write", field="layout", found=layout, expected=" or ".join(LAYOUTS))
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError("holds something already; nothing is overwritten", file=target, expected="a new folder")
    for lost in losses(dataset, layout):
        tell(lost)
    made = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=target))
    try:
        _WRITERS[layout](work, splits_of(dataset))
        for part in sorted(work.iterdir()):
            part.rename(target / part.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if made and not any(target.iterdir()):
            target.rmdir()
    return target


class Writable(Shown):
    """Gives a dataset the method ``save``, and ways to show itself."""

    def save(self, folder: str | os.PathLike, layout: str = "coco") -> Path:
        """Writes the dataset with all its splits and images into a new folder, as ``datasets.save`` does."""
        return save(self, folder, layout)


def splits_of(dataset: Any) -> dict[str, DetectionDataset]:
    """The splits of a dataset by name; ``""`` for one without."""
    found = {name: getattr(dataset, name, None) for name in ("train", "val", "test")}
    named = {name: part for name, part in found.items() if part is not None and hasattr(part, "__getitem__")}
    others = getattr(dataset, "splits", None) or {}
    named |= {name: others[name] for name in others if name not in named}
    return named or {"": dataset}


def losses(dataset: Any, layout: str) -> list[str]:
    """What of a dataset a layout cannot hold, one text for each; nothing where it comes back equal."""
    told = []
    for name, part in splits_of(dataset).items():
        columns, where = columns_of(part), f"{name}: " if name else ""
        if layout in ("coco", "parquet"):
            for what, ids in (("images", columns.image_ids), ("annotations", columns.annotation_ids)):
                if _repeated(ids):
                    told.append(f"{where}ids of {what}: some occur more than once, so that all are given anew")
        if layout == "coco":
            continue
        kinds = [] if columns.segments is None else [columns.segments.kind(row) for row in range(len(columns))]
        masks = sum(kind != NO_SEGMENT for kind in kinds)
        runs = sum(kind not in (NO_SEGMENT, POLYGONS) for kind in kinds)
        parted = sum(kind == POLYGONS and len(columns.segments.polygons(row)) > 1 for row, kind in enumerate(kinds))  # type: ignore[union-attr]
        ignored, crowds = int(columns.ignore.sum()), int(columns.crowd.sum())
        if layout == "voc" and masks:
            told.append(f"{where}{masks} masks: Pascal VOC has boxes alone")
        if layout == "voc" and crowds:
            told.append(f"{where}{crowds} regions of many objects become difficult objects")
        if layout in ("yolo", "parquet") and runs:
            told.append(f"{where}{runs} masks by run lengths become boxes")
        if layout == "yolo" and parted:
            told.append(f"{where}{parted} masks of several polygons become boxes")
        if layout == "yolo" and ignored:
            told.append(f"{where}{ignored} ignored objects (crowd or difficult) are left out")
        if layout in ("voc", "yolo"):
            told.append(f"{where}ids of annotations and categories are given anew; images are named by their files")
    return told


def coco_content(dataset: DetectionDataset, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """A dataset in the form of a COCO instances file, with every annotation that it states.

    ``ignore`` says what neither counts as found nor as missed, as in the VOC and LVIS conversions; ``iscrowd`` marks
    regions of many objects. Format: https://cocodataset.org/#format-data

    names, sizes: ``file_name`` and (H, W) of each image.
    """
    columns = columns_of(dataset)
    image_ids, annotation_ids = _distinct(columns.image_ids), _distinct(columns.annotation_ids)
    images = [
        {"id": image_ids[i].item(), "file_name": name, "height": int(h), "width": int(w)}
        for i, (name, (h, w)) in enumerate(zip(names, sizes, strict=True))
    ]
    annotations = []
    for row, image in enumerate(columns.image_of().tolist()):
        entry = {
            "id": annotation_ids[row].item(),
            "image_id": images[image]["id"],
            "category_id": int(dataset.category_ids[columns.labels[row]]),
            "bbox": xywh(columns, row),
            "area": float(columns.areas[row]),
            "iscrowd": int(columns.crowd[row]),
        }
        if columns.ignore[row] and not columns.crowd[row]:
            entry["ignore"] = 1
        if columns.segments is not None and columns.segments.kind(row) == POLYGONS:
            entry["segmentation"] = [part.reshape(-1).tolist() for part in columns.segments.polygons(row)]
        elif columns.segments is not None and columns.segments.kind(row) != NO_SEGMENT:
            rle = columns.segmentation(row)
            entry["segmentation"] = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
        annotations.append(entry)
    categories = [{"id": int(i), "name": str(name)} for i, name in zip(dataset.category_ids, dataset.classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _repeated(ids: np.ndarray) -> bool:
    return len(np.unique(ids)) < len(ids)


def _distinct(ids: np.ndarray) -> np.ndarray:
    """Ids as they are, or numbers from 1 where some are repeated, as in data sets that were joined."""
    return np.arange(1, len(ids) + 1) if _repeated(ids) else ids


def xywh(columns: Annotations, row: int) -> list[float]:
    """The box of an annotation as x, y, width, height; exactly as stated where the file states it so."""
    if columns.box_format == "xywh":
        return columns.stated_boxes[row].tolist()
    x1, y1, x2, y2 = columns.boxes[row].tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def _coco(target: Path, parts: Mapping[str, DetectionDataset]) -> None:
    (target / "annotations").mkdir()
    for split, part in parts.items():
        names, sizes = _copy_images(part, target / (split or "images"))
        content = coco_content(part, names, sizes)
        _write(target / "annotations" / f"instances_{split or 'all'}.json", json.dumps(content))


def _voc(target: Path, parts: Mapping[str, DetectionDataset]) -> None:
    (target / "Annotations").mkdir()
    (target / "ImageSets" / "Main").mkdir(parents=True)
    # All splits share one folder of images.
    taken: set[str] = set()
    for split, part in parts.items():
        names, sizes = _copy_images(part, target / "JPEGImages", taken)
        columns = columns_of(part)
        for i, (name, (h, w)) in enumerate(zip(names, sizes)):
            root = ElementTree.Element("annotation")
            _text(root, "filename", name)
            size = ElementTree.SubElement(root, "size")
            for tag, value in (("width", w), ("height", h), ("depth", 3)):
                _text(size, tag, value)
            for row in range(columns.rows(i).start, columns.rows(i).stop):
                element = ElementTree.SubElement(root, "object")
                _text(element, "name", part.classes[columns.labels[row]])
                _text(element, "difficult", int(columns.ignore[row]))
                box = ElementTree.SubElement(element, "bndbox")
                x1, y1, x2, y2 = columns.boxes[row].tolist()
                # Pixels are counted from 1, and both ends belong to the box.
                for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
                    _text(box, tag, f"{value:.10g}")
            tree = ElementTree.tostring(root, encoding="unicode")
            _write(target / "Annotations" / f"{Path(name).stem}.xml", tree)
        stems = "".join(f"{Path(name).stem}\n" for name in names)
        _write(target / "ImageSets" / "Main" / f"{split or 'trainval'}.txt", stems)


def _yolo(target: Path, parts: Mapping[str, DetectionDataset]) -> None:
    lines = ["path: ."]
    for split, part in parts.items():
        folder = split or "train"
        names, sizes = _copy_images(part, target / "images" / folder)
        (target / "labels" / folder).mkdir(parents=True)
        columns = columns_of(part)
        for i, (name, (h, w)) in enumerate(zip(names, sizes)):
            rows = range(columns.rows(i).start, columns.rows(i).stop)
            told = [_yolo_line(columns, row, h, w) for row in rows if not columns.ignore[row]]
            _write(target / "labels" / folder / f"{Path(name).stem}.txt", "".join(f"{line}\n" for line in told))
        lines.append(f"{folder}: images/{folder}")
    classes = next(iter(parts.values())).classes
    lines += [
        "names:",
        *(f"  {label}: {json.dumps(str(name), ensure_ascii=False)}" for label, name in enumerate(classes)),
    ]
    _write(target / "data.yaml", "\n".join(lines) + "\n")


def _yolo_line(columns: Annotations, row: int, h: int, w: int) -> str:
    label = int(columns.labels[row])
    if columns.segments is not None and columns.segments.kind(row) == POLYGONS:
        polygons = columns.segments.polygons(row)
        if len(polygons) == 1:
            points = polygons[0].reshape(-1, 2) / (w, h)
            return " ".join([str(label), *(f"{value:.10g}" for value in points.reshape(-1))])
    x1, y1, x2, y2 = columns.boxes[row].tolist()
    values = ((x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h)
    return " ".join([str(label), *(f"{value:.10g}" for value in values)])


def _parquet(target: Path, parts: Mapping[str, DetectionDataset]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise ImportError("writing Parquet needs pyarrow: pip install 'detection-sdk[parquet]'") from error
    for split, part in parts.items():
        columns = columns_of(part)
        image_ids, annotation_ids = _distinct(columns.image_ids), _distinct(columns.annotation_ids)
        names = file_names(part)
        features = {
            "objects": {"feature": {"category": {"names": list(map(str, part.classes)), "_type": "ClassLabel"}}}
        }
        told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        file = target / f"{split or 'train'}-00000-of-00001.parquet"
        writer = None
        for i, name in enumerate(names):
            content = image_bytes(part, i)
            h, w = _size(part, i)
            rows = range(columns.rows(i).start, columns.rows(i).stop)
            objects = {
                "id": [annotation_ids[row].item() for row in rows],
                "bbox": [xywh(columns, row) for row in rows],
                "category": [int(columns.labels[row]) for row in rows],
                "area": [float(columns.areas[row]) for row in rows],
                "iscrowd": [int(columns.crowd[row]) for row in rows],
                "ignore": [bool(columns.ignore[row]) for row in rows],
                "segmentation": [_polygons(columns, row) for row in rows],
            }
            entry = {
                "image": {"bytes": content, "path": name},
                "image_id": image_ids[i].item(),
                "width": w,
                "height": h,
                "objects": objects,
            }
            table = pa.Table.from_pylist(
                [entry], schema=_schema(pa, image_ids, annotation_ids)
            ).replace_schema_metadata(told)
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _schema(pa: Any, image_ids: np.ndarray, annotation_ids: np.ndarray) -> Any:
    """The columns that are written, with ids as numbers or as text."""
    number_or_text: Callable[[np.ndarray], Any] = lambda ids: pa.int64() if ids.dtype.kind in "iu" else pa.string()
    objects = {
        "id": pa.list_(number_or_text(annotation_ids)),
        "bbox": pa.list_(pa.list_(pa.float64())),
        "category": pa.list_(pa.int64()),
        "area": pa.list_(pa.float64()),
        "iscrowd": pa.list_(pa.int64()),
        "ignore": pa.list_(pa.bool_()),
        "segmentation": pa.list_(pa.list_(pa.list_(pa.float64()))),
    }
    return pa.schema(
        {
            "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "image_id": number_or_text(image_ids),
            "width": pa.int64(),
            "height": pa.int64(),
            "objects": pa.struct(objects),
        }
    )


def _polygons(columns: Annotations, row: int) -> list[list[float]] | None:
    if columns.segments is None or columns.segments.kind(row) != POLYGONS:
        return None
    return [part.reshape(-1).tolist() for part in columns.segments.polygons(row)]


_WRITERS: dict[str, Callable[[Path, Mapping[str, DetectionDataset]], None]] = {
    "coco": _coco,
    "voc": _voc,
    "yolo": _yolo,
    "parquet": _parquet,
}


def file_names(dataset: DetectionDataset, taken: set[str] | None = None) -> list[str]:
    """A file name for each image, unique without its ending: the image's own where it has one, else its id.

    taken: names without ending, in lower case, that others have already; those given here are added.
    """
    taken = set() if taken is None else taken
    names = []
    for i in range(len(dataset)):
        path = dataset.info(i).path
        inside = path is not None and "::" in path
        own = Path(path.split("@")[-1] if inside else path) if path is not None else None
        stem = own.stem if own is not None and own.stem else str(columns_of(dataset).image_ids[i])
        suffix = own.suffix if own is not None and own.suffix else ".png"
        stem = "".join(c if c.isalnum() or c in "-_. " else "_" for c in stem)
        free, number = stem, 1
        while free.lower() in taken:
            number += 1
            free = f"{stem}-{number}"
        taken.add(free.lower())
        names.append(free + suffix)
    return names


def image_bytes(dataset: DetectionDataset, index: int) -> bytes:
    """The content of an image's file as it is; a PNG of its pixels where it lies in no file of its own."""
    path = dataset.info(index).path
    if path is not None and Path(path).is_file():
        return Path(path).read_bytes()
    done, content = cv2.imencode(".png", cv2.cvtColor(dataset[index].image, cv2.COLOR_RGB2BGR))
    if not done:
        raise DatasetError("cannot be written as an image", where=f"image {index}")
    return content.tobytes()


def _copy_images(
    dataset: DetectionDataset, folder: Path, taken: set[str] | None = None
) -> tuple[list[str], list[tuple[int, int]]]:
    """Copies the images; their names, as of ``file_names``, and (H, W)."""
    folder.mkdir(parents=True, exist_ok=True)
    names = file_names(dataset, taken)
    for i, name in enumerate(names):
        path = dataset.info(i).path
        if path is not None and Path(path).is_file():
            shutil.copyfile(path, folder / name)
        else:
            names[i] = Path(name).with_suffix(".png").name
            (folder / names[i]).write_bytes(image_bytes(dataset, i))
    return names, [_size(dataset, i) for i in range(len(names))]


def _size(dataset: DetectionDataset, index: int) -> tuple[int, int]:
    h, w = dataset.info(index).size
    if h and w:
        return int(h), int(w)
    image = dataset[index].image
    return image.shape[0], image.shape[1]


def _text(parent: ElementTree.Element, tag: str, value: Any) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
