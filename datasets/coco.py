"""COCO: instances JSON of any year, and every dataset written in that format.

Official layout::

    coco/annotations/instances_train2017.json  instances_val2017.json  image_info_test-dev2017.json
    coco/train2017/000000000009.jpg ...  coco/val2017/  coco/test2017/
    coco/stuffthingmaps/train2017/000000000009.png ...      (class maps, for methods with a semantic branch)

Other layouts that are recognized: one annotation file beside its images, ``data/*.json`` with ``images/``,
``train/_annotations.coco.json``, ``train/annotations.json`` with ``train/images/``, and files two folders down.
Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from .adapter import IndexedDataset, OnFault, Splits, fingerprint_of, settle_faults, with_classes, with_present_images
from .errors import DatasetError, DatasetWarning, Fault
from .index import NO_SEGMENT, POLYGONS, RLE, Batch, Builder, Index, Texts, cached
from .json_arrays import JsonArrays
from .json_columns import JsonColumns, Kind, Rows, read_object
from .listing import SPLIT_FOLDERS, of_other_split, split_of_file
from .masks import area, bounding_box, check_polygons, check_rle, encode_polygons
from .proposals import read_proposals

# A file in which everything is wrong must not fill the memory with its faults.
MAX_FAULTS = 10_000
KINDS = ("train", "val", "test")
# The fields that make columns.
FIELDS = {
    "categories": {},
    "images": {
        "id": Kind.WHOLE,
        "height": Kind.WHOLE,
        "width": Kind.WHOLE,
        "file_name": Kind.TEXT,
        "coco_url": Kind.TEXT,
    },
    "annotations": {
        "id": Kind.WHOLE,
        "image_id": Kind.WHOLE,
        "category_id": Kind.WHOLE,
        "bbox": Kind.BOX,
        "area": Kind.NUMBER,
        "iscrowd": Kind.FLAG,
        "ignore": Kind.FLAG,
        "segmentation": Kind.MASK,
    },
}
MAX_FILES_OF_A_FOLDER = 20


class Coco(IndexedDataset):
    """A dataset in COCO format.

    root: folder with annotation files and images. split: ``train``, ``val``, ``test`` or the name of an annotation
    file without ``instances_`` (``val2017``). Without it, a folder with several splits opens as its training split
    and carries the others as ``.train``, ``.val``, ``.test``.
    annotations, images: the file and the folder, where they do not lie as above; root is then not needed.
    classes: keep these classes only, in this order. semantic: folder of class maps (``<image name>.png``, uint8, 255
    unlabelled). proposals: file of boxes given from outside, see ``datasets.proposals``.
    on_fault: what to do with annotations that cannot be used: ``raise``, ``skip`` them with a warning, or ``repair``
    in memory what can be repaired.

    Raises DatasetError naming file, annotation and field.
    """

    absolute_names = False

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        split: str | None = None,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        classes: Sequence[str] | None = None,
        semantic: str | Path | None = None,
        proposals: str | Path | None = None,
        on_fault: OnFault = "raise",
    ) -> None:
        splits: Splits | None = None
        if annotations is not None:
            file, name = Path(annotations), split or _split_name(Path(annotations))
        else:
            if root is None:
                raise DatasetError("where the dataset lies is not said", expected="root, or annotations and images")
            files = annotation_files(Path(root))
            if split is None and len(files) > 1:
                names = split_names(files)
                open_split = partial(
                    Coco,
                    root,
                    images=images,
                    classes=classes,
                    semantic=semantic,
                    proposals=proposals,
                    on_fault=on_fault,
                )
                splits = Splits(names, open_split, first=self)
            name, file = choose_file(files, split, Path(root), images)
        image_root = Path(images) if images is not None else None
        repair = on_fault == "repair"
        index = cached([file], ("coco", repair), lambda: read_instances(instances_parts(file), repair=repair))
        index = with_classes(settle_faults(index, on_fault, file), classes, file)
        if image_root is None:
            image_root = find_images(index, Path(root) if root is not None else file.parent, file, name)
        if len(index.annotations.image_ids) and not has_images(index, image_root):
            index, image_root = by_last_part(index, image_root)
        boxes = None if proposals is None else read_proposals(Path(proposals), index.annotations.image_ids)
        all_ids = index.annotations.image_ids
        index = with_present_images(index, image_root, on_fault)
        if boxes is not None:
            boxes = boxes.take(np.flatnonzero(np.isin(all_ids, index.annotations.image_ids)))
        names = index.annotations.image_files
        maps = None
        if semantic is not None:
            maps = [Path(semantic) / Path(names[i]).with_suffix(".png").name for i in range(len(names))]
        super().__init__(
            index=index,
            image_root=image_root,
            splits=splits,
            semantic_files=maps,
            proposals=boxes,
        )


def instances_parts(file: Path) -> JsonArrays | JsonColumns:
    """The arrays of an instances file, as columns wherever possible. Raises DatasetError where it cannot be read."""
    return read_object(file, FIELDS) or JsonArrays(file)


def read_instances(
    parts: JsonArrays | JsonColumns,
    *,
    repair: bool = False,
    image_name: Callable[[dict[str, Any]], str | None] = lambda entry: entry.get("file_name"),
) -> Index:
    """Parse an instances file into columns; annotations that cannot be used are left out and listed as faults.

    repair: where the mask is broken keep the box, where the box is broken take the mask's, take a missing area from
    the box. image_name: the image's path relative to the image folder.
    Raises DatasetError where the file as a whole cannot be read.
    """
    reader = _Reader(parts.file, repair)
    for part in ("categories", "images"):
        if not parts.has(part):
            raise DatasetError("a part is missing", file=parts.file, field=part, expected="an array")
    for place, entry in enumerate(parts.elements("categories")):
        reader.category(place, entry)
    reader.settle_categories()
    rows = parts.rows("images")
    if rows is None or not reader.images(rows, image_name):
        for place, entry in enumerate(parts.elements("images")):
            reader.image(place, entry, image_name)
    if parts.has("annotations"):
        rows = parts.rows("annotations")
        if rows is None or not reader.annotations(rows):
            for place, entry in enumerate(parts.elements("annotations")):
                reader.annotation(place, entry)
    # What was read has become columns, and makes room.
    del rows, parts
    annotations = reader.builder.finish(masks=None)
    classes, category_ids = reader.classes, reader.category_ids
    if reader.first_is_group():
        # Label 0 is on no object, so that the others only move down.
        annotations = annotations.relabel(np.arange(len(classes)) - 1)
        classes, category_ids = classes[1:], category_ids[1:]
    return Index(
        annotations=annotations,
        classes=classes,
        category_ids=category_ids,
        fingerprint=fingerprint_of(annotations, classes),
        faults=tuple(reader.faults),
    )


class _Reader:
    """Checks the entries of one file and hands the good ones to the builder."""

    def __init__(self, file: Path, repair: bool) -> None:
        self.file, self.repair = file, repair
        self.builder = Builder()
        self.faults: list[Fault] = []
        self.classes: tuple[str, ...] = ()
        self.category_ids: tuple[int, ...] = ()
        self._names: dict[int, str] = {}
        self._parents: dict[int, str] = {}
        self._used: set[int] = set()
        self._labels: dict[int, int] = {}
        self._images: dict[Any, int] = {}
        self._annotation_ids: set[Any] = set()

    def category(self, place: int, entry: Any) -> None:
        where = f"categories[{place}]"
        category_id, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not (_is_whole(category_id) or _is_digits(category_id)) or not isinstance(name, str):
            raise DatasetError("not a category", file=self.file, where=where, found=entry, expected="an id and a name")
        category_id, parent = int(category_id), str(entry.get("supercategory"))
        same = next((known for known, other in self._names.items() if other == name), None)
        if same == 0 and category_id != 0 and parent == name:
            # Some tools list the super-category first, under the name of its only class.
            del self._names[same], self._parents[same]
            same = None
        if category_id in self._names or same is not None:
            raise DatasetError("category is given twice", file=self.file, where=where, field="id, name", found=entry)
        self._names[category_id], self._parents[category_id] = name, parent

    def settle_categories(self) -> None:
        self.category_ids = tuple(sorted(self._names))
        self.classes = tuple(self._names[i] for i in self.category_ids)
        self._labels = {category_id: label for label, category_id in enumerate(self.category_ids)}
        if not self.classes:
            raise DatasetError("there are no categories", file=self.file, field="categories")

    def first_is_group(self) -> bool:
        """Whether category 0 only groups the others: it is their super-category, and on no object (Roboflow)."""
        if self.category_ids[0] != 0 or len(self.classes) == 1 or 0 in self._used:
            return False
        return self.classes[0] in {parent for category_id, parent in self._parents.items() if category_id != 0}

    def image(self, place: int, entry: Any, image_name: Callable[[dict[str, Any]], str | None]) -> None:
        if not isinstance(entry, dict):
            self._fault("not an image entry", f"images[{place}]", found=entry, expected="an object")
            return
        image_id = entry.get("id")
        where = f"images[{place}] id {image_id}"
        if not _is_whole(image_id) and not isinstance(image_id, str):
            self._fault("image without id", where, "id", image_id)
            return
        image_id = int(image_id) if _is_whole(image_id) else image_id
        if image_id in self._images:
            self._fault("duplicate image id", where, "id", image_id)
            return
        name = image_name(entry)
        if not isinstance(name, str) or not name or "\0" in name:
            self._fault("image without file name", where, "file_name", name)
            return
        h, w = entry.get("height"), entry.get("width")
        if not (_is_whole(h) and _is_whole(w) and 0 < h < 2**31 and 0 < w < 2**31):
            self._fault("image without size", where, "height, width", (h, w), "positive whole numbers")
            return
        # Tools of Windows write their own separators.
        name = name.replace("\\", "/")
        self._images[image_id] = self.builder.image(image_id, (int(h), int(w)), name)

    def images(self, rows: Rows, image_name: Callable[[dict[str, Any]], str | None]) -> bool:
        """As ``image`` of all rows, where nothing about them is unusual; else false, and nothing is done."""
        ids, sizes = rows.values["id"], np.stack([rows.values["height"], rows.values["width"]], axis=1)
        fits = rows.regular & rows.given["id"] & rows.given["height"] & rows.given["width"]
        if not (fits & (sizes > 0).all(1) & (sizes < 2**31).all(1)).all() or not _alone(ids).all():
            return False
        stated = {field: rows.values[field].tolist() for field in ("file_name", "coco_url") if rows.given[field].any()}
        present = {field: rows.given[field].tolist() for field in stated}
        names = []
        for i in range(len(rows)):
            name = image_name({field: stated[field][i] for field in stated if present[field][i]})
            if not name:
                return False
            names.append(name)
        self.builder.images(ids.tolist(), list(zip(*sizes.T.tolist())), names)
        self._images = dict(zip(ids.tolist(), range(len(ids))))
        return True

    @cached_property
    def _files(self) -> dict[str, int]:
        """Images by their file names, with and without folders; of equal names the last."""
        found: dict[str, int] = {}
        for image, name in enumerate(self.builder.files):
            found[Path(name).name] = found[name] = image
        return found

    def annotations(self, rows: Rows) -> bool:
        """As ``annotation`` of all rows; those about which anything is unusual are looked at one by one.

        False, and nothing done, where it cannot be told which rows share an id.
        """
        if not len(rows):
            return True
        given, values = rows.given, rows.values
        if (~rows.regular & ~given["id"]).any():
            return False
        ids = np.where(given["id"], values["id"], np.arange(1, len(rows) + 1))
        images, labels = _places(self._images, values["image_id"]), _places(self._labels, values["category_id"])
        crowd = values["iscrowd"]
        usual = rows.regular & given["image_id"] & given["category_id"] & (images >= 0) & (labels >= 0)
        usual &= _alone(ids) & ((crowd == 0) | (crowd == 1))
        sizes = np.array([*self.builder.sizes, (0, 0)])[images]
        masks = values["segmentation"]
        kinds, extents = masks.segments.kinds, masks.extents
        reach = sizes.max(1, keepdims=True)
        near = (extents >= -reach).all(1) & (extents[:, 2:] <= sizes[:, ::-1] + reach).all(1)
        usual &= (kinds == NO_SEGMENT) | ((kinds == POLYGONS) & near) | ((kinds == RLE) & (masks.sizes == sizes).all(1))
        boxes = values["bbox"]
        around = ~given["bbox"] & (kinds == POLYGONS)
        if around.any():
            edges = np.concatenate([extents[:, :2], extents[:, 2:] - extents[:, :2]], axis=1)
            boxes = np.where(around[:, None], edges, boxes)
        usual &= around | (given["bbox"] & (np.abs(boxes) <= 1e9).all(1) & (boxes[:, 2:] >= 0).all(1))
        areas = np.where(given["area"], values["area"], boxes[:, 2] * boxes[:, 3])
        usual &= (areas >= 0) & (given["area"] | (kinds == NO_SEGMENT))
        # A slice copies nothing.
        kept = slice(None) if usual.all() else np.flatnonzero(usual)
        stated, labels = boxes[kept], labels[kept]
        self._used.update(np.unique(labels).tolist())
        self.builder.annotations(
            Batch(
                places=np.arange(len(rows))[kept],
                images=images[kept],
                annotation_ids=ids[kept],
                boxes=np.concatenate([stated[:, :2], stated[:, :2] + stated[:, 2:]], axis=1),
                stated_boxes=stated,
                labels=labels,
                ignore=((crowd != 0) | (values["ignore"] != 0))[kept],
                crowd=(crowd != 0)[kept],
                areas=areas[kept],
                segments=replace(masks.segments, rows=np.arange(len(rows))[kept]),
            )
        )
        unusual = np.flatnonzero(~usual).tolist()
        for place, entry in zip(unusual, rows.entries(unusual)):
            self.annotation(place, entry)
        return True

    def annotation(self, place: int, entry: Any) -> None:
        if not isinstance(entry, dict):
            self._fault("not an annotation", f"annotations[{place}]", found=entry, expected="an object")
            return
        annotation_id = entry.get("id", place + 1)
        where = f"annotation {annotation_id}"
        if not _is_whole(annotation_id) and not isinstance(annotation_id, str):
            self._fault("annotation without id", f"annotations[{place}]", "id", annotation_id)
            return
        annotation_id = int(annotation_id) if _is_whole(annotation_id) else annotation_id
        if annotation_id in self._annotation_ids:
            self._fault("duplicate annotation id", f"annotations[{place}] id {annotation_id}", "id", annotation_id)
            return
        image = self._lookup(self._images, entry.get("image_id"))
        if image is None and isinstance(entry.get("image_id"), str):
            # Some tools name the file instead of its id.
            image = self._files.get(entry["image_id"])
        if image is None:
            self._fault("unknown image", where, "image_id", entry.get("image_id"), "the id of an image in the file")
            return
        label = self._lookup(self._labels, entry.get("category_id"))
        if label is None:
            expected = f"one of {len(self._labels)} category ids"
            self._fault("unknown category", where, "category_id", entry.get("category_id"), expected)
            return
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            self._fault("crowd flag is neither 0 nor 1", where, "iscrowd", crowd)
            return
        size = self.builder.sizes[image]
        polygons, counts = self._segmentation(entry.get("segmentation"), size, where)
        if polygons is None and counts is None and not self.repair and entry.get("segmentation"):
            return
        box = self._box(entry, polygons, counts, size, where)
        if box is None:
            return
        x, y, w, h = box
        self._annotation_ids.add(annotation_id)
        self._used.add(label)
        self.builder.annotation(
            annotation_id,
            image,
            box=(x, y, x + w, y + h),
            stated=box,
            label=label,
            area=self._area(entry, box, polygons, counts, size, where),
            ignore=bool(crowd) or bool(entry.get("ignore", False)),
            crowd=bool(crowd),
            polygons=polygons,
            counts=counts,
            place=place,
        )

    def _segmentation(
        self, segmentation: Any, size: tuple[int, int], where: str
    ) -> tuple[list[list[float]] | None, bytes | None]:
        """(polygons, compressed counts), at most one of them; a fault is noted where the mask is malformed."""
        if segmentation is None or segmentation == []:
            return None, None
        try:
            if isinstance(segmentation, dict):
                return None, check_rle(segmentation, size)
            return check_polygons(segmentation, size), None
        except DatasetError as error:
            self._fault(error.problem, where, error.field, error.found, error.expected)
            return None, None

    def _box(
        self,
        entry: dict[str, Any],
        polygons: list[list[float]] | None,
        counts: bytes | None,
        size: tuple[int, int],
        where: str,
    ) -> tuple[float, float, float, float] | None:
        """x, y, w, h; the mask's where the entry has none."""
        box = entry.get("bbox")
        problem = None
        if box is not None or (polygons is None and counts is None):
            if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
                problem = "box is not four numbers"
            elif not all(math.isfinite(v) for v in box):
                problem = "box is not finite"
            elif max(abs(v) for v in box) > 1e9:
                problem = "box far outside the image"
            elif box[2] < 0 or box[3] < 0:
                problem = "box with negative size"
            else:
                return float(box[0]), float(box[1]), float(box[2]), float(box[3])
            self._fault(problem, where, "bbox", box, "[x, y, width, height] in pixels")
            if not self.repair:
                return None
        if counts is not None:
            x1, y1, x2, y2 = bounding_box({"size": list(size), "counts": counts})
        elif polygons:
            xs = [v for polygon in polygons for v in polygon[0::2]]
            ys = [v for polygon in polygons for v in polygon[1::2]]
            x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
        else:
            return None
        return x1, y1, x2 - x1, y2 - y1

    def _area(
        self,
        entry: dict[str, Any],
        box: tuple[float, float, float, float],
        polygons: list[list[float]] | None,
        counts: bytes | None,
        size: tuple[int, int],
        where: str,
    ) -> float:
        """As stated, else the mask's, else the box's."""
        stated = entry.get("area")
        if _is_number(stated) and math.isfinite(stated) and stated >= 0:
            return float(stated)
        if stated is not None:
            self._fault("area is not a number >= 0; the mask's or the box's is taken", where, "area", stated)
        if counts is not None:
            return float(area({"size": list(size), "counts": counts}))
        if polygons is not None:
            return float(area(encode_polygons(polygons, size)))
        return box[2] * box[3]

    @staticmethod
    def _lookup(known: dict[Any, int], key: Any) -> int | None:
        """The value of an id, which may stand as a number in one place and as its digits in another."""
        if not (_is_whole(key) or isinstance(key, str)):
            return None
        if key in known:
            return known[key]
        if isinstance(key, str):
            return known.get(int(key)) if _is_digits(key) else None
        return known.get(str(int(key)))

    def _fault(
        self, kind: str, where: str, field: str | None = None, found: object = None, expected: object = None
    ) -> None:
        if len(self.faults) < MAX_FAULTS:
            shown = None if found is None else f"{found!r:.200}"
            limits = None if expected is None else str(expected)
            self.faults.append(Fault(kind, str(self.file), where, field, shown, limits))


def _places(known: dict[Any, int], values: np.ndarray) -> np.ndarray:
    """(n,) what each of (n,) whole numbers stands for, -1 for those that are not known."""
    keys = np.array([key for key in known if isinstance(key, int)], np.int64)
    if not len(keys):
        return np.full(len(values), -1)
    order = np.argsort(keys)
    found = order[np.searchsorted(keys, values, sorter=order).clip(max=len(keys) - 1)]
    places = np.array([known[key] for key in keys.tolist()])
    return np.where(keys[found] == values, places[found], -1)


def _alone(ids: np.ndarray) -> np.ndarray:
    """(n,) bool: the ids that occur once."""
    if (np.diff(ids) > 0).all():
        return np.ones(len(ids), bool)
    _, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return counts[place] == 1


def _is_whole(value: Any) -> TypeGuard[int]:
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and abs(value) < 2**62) or (isinstance(value, float) and value.is_integer())


def _is_digits(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 18


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def annotation_files(root: Path) -> dict[str, Path]:
    """The annotation files below a dataset's folder by the name of their split. Raises DatasetError for none."""
    if not root.is_dir():
        raise DatasetError("dataset folder is missing", file=root)
    found: dict[str, Path] = {}
    for pattern in ("annotations/*.json", "*.json", "data/*.json", "*/_annotations.coco.json"):
        for file in sorted(root.glob(pattern)):
            if _looks_like_instances(file):
                found.setdefault(_split_name(file), file)
        if found:
            return found
    found = _deeper_files(root)
    if found:
        return found
    raise DatasetError(
        "no annotation file in COCO format",
        file=root,
        expected="annotations/instances_<split>.json, or annotations= and images= given",
    )


def _deeper_files(root: Path) -> dict[str, Path]:
    """Annotation files one or two folders down by split, where they lie at the same place but for the split's name.

    Several places are several datasets, of which none is chosen here.
    """
    found: dict[str, Path] = {}
    places: set[tuple[str, ...]] = set()
    for pattern in ("*/", "*/*/"):
        for folder in sorted(root.glob(pattern)):
            files = list(itertools.islice(folder.glob("*.json"), MAX_FILES_OF_A_FOLDER + 1))
            if len(files) > MAX_FILES_OF_A_FOLDER:
                # One an image, as labelme writes them.
                continue
            for file in filter(_looks_like_instances, sorted(files)):
                above = folder.relative_to(root).parts
                split = next((part for part in above if part.lower() in SPLIT_FOLDERS), None)
                name = _split_name(file) if split is None else split
                if name in found:
                    return {}
                found[name] = file
                places.add(tuple(part for part in above if part != split))
        if found:
            break
    return found if len(places) == 1 else {}


def _looks_like_instances(file: Path) -> bool:
    if file.name.startswith(("captions_", "person_keypoints_", "panoptic_", "stuff_")):
        return False
    with open(file, "rb") as stream:
        head = stream.read(1 << 16).lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith(b"{") and any(f'"{key}"'.encode() in head for key in ("images", "annotations", "categories"))


def _split_name(file: Path) -> str:
    if file.name == "_annotations.coco.json":
        return file.parent.name
    return re.sub(r"^(instances|image_info|annotations?)_", "", file.stem)


def _kind(name: str) -> str | None:
    lowered = name.lower()
    if lowered == "valid":
        return "val"
    return next((kind for kind in KINDS if kind in lowered), None)


def split_names(files: dict[str, Path]) -> list[str]:
    """``train``, ``val``, ``test`` for the files that say so, the names of the others as they are."""
    kinds = [_kind(name) for name in files]
    return [kind for kind in KINDS if kind in kinds] + [name for name, kind in zip(files, kinds) if kind is None]


def choose_file(files: dict[str, Path], split: str | None, root: Path, images: str | Path | None) -> tuple[str, Path]:
    """(name, annotation file) of a split; without one, of the first of train, val, test.

    Where several files fit, the one whose images all lie there is taken, with a warning. Raises DatasetError.
    """
    if split is None:
        split = split_names(files)[0]
    if split in files:
        return split, files[split]
    fitting = {name: file for name, file in files.items() if _kind(name) == split}
    if not fitting:
        raise DatasetError("no such split", file=root, field="split", found=split, expected=" or ".join(files))
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    complete = {name: file for name, file in fitting.items() if _images_complete(root, name, file, images)}
    if len(complete) != 1:
        raise DatasetError(
            "several annotation files fit the split",
            file=root,
            field="split",
            found=split,
            expected=" or ".join(fitting),
        )
    name, file = next(iter(complete.items()))
    warnings.warn(
        f"{root}: of {', '.join(fitting)} only {name} has all its images here and is taken for {split!r}",
        DatasetWarning,
        stacklevel=3,
    )
    return name, file


def _images_complete(root: Path, name: str, file: Path, images: str | Path | None) -> bool:
    index = cached([file], ("coco", False), lambda: read_instances(instances_parts(file)))
    folder = Path(images) if images is not None else find_images(index, root, file, name)
    files = index.annotations.image_files
    return all((folder / files[i]).is_file() for i in range(len(files)))


def find_images(index: Index, root: Path, file: Path, name: str) -> Path:
    """The folder in which the file's images lie; where none is found, the likeliest, so that reading names it."""
    kind = _kind(name)
    official = re.search(r"(train|val|test)(?:-dev)?(\d{4})", name)
    names = [name]
    if official:
        names.append(official.group(1) + official.group(2))
    if kind is not None:
        names.append(kind)
    candidates = [folder for n in names for folder in (root / n, root / "images" / n)]
    candidates += sorted(root.glob(f"{kind}[0-9]*")) if kind is not None else []
    # A file further down may lie beside its images, or beside the folder of annotations that it is in.
    near = [file.parent, file.parent.parent] if file.parent.parent.is_relative_to(root) else []
    inner = ("images", *names, "data", "")
    candidates += [folder / name for folder in near if folder != root for name in inner]
    candidates += [root / "images", root / "data", root / "JPEGImages", root, file.parent]
    for folder in candidates:
        if folder.is_dir() and has_images(index, folder):
            return folder
    for folder in sorted(root.iterdir()):
        # Any other folder of images.
        elsewhere = folder in candidates or of_other_split(folder, split_of_file(file))
        if folder.is_dir() and not elsewhere and has_images(index, folder):
            return folder
    return next((folder for folder in candidates if folder.is_dir()), root)


def image_names(file: Path, most: int = 50) -> list[str]:
    """File names of the first images of an annotation file."""
    entries = itertools.islice(JsonArrays(file).elements("images"), most)
    names = (entry.get("file_name") for entry in entries if isinstance(entry, dict))
    return [name.replace("\\", "/") for name in names if isinstance(name, str)]


def by_last_part(index: Index, folder: Path) -> tuple[Index, Path]:
    """The index with the last parts of the image names, where only these are found: the folders were another
    machine's. Else the index and the folder as they are."""
    files = index.annotations.image_files
    names = [Path(files[i]).name for i in range(len(files))]
    short = replace(index, annotations=replace(index.annotations, image_files=Texts.of(names)), folder=None)
    for place in (folder, folder / "images", folder.parent / "images"):
        if len(set(names)) == len(names) and place.is_dir() and has_images(short, place):
            return short, place
    return index, folder


def has_images(index: Index, folder: Path) -> bool:
    """Whether any of the images lies there; of many, a thousand evenly spread ones are looked for."""
    files = index.annotations.image_files
    return any((folder / files[i]).is_file() for i in range(0, len(files), max(1, len(files) // 1000)))
