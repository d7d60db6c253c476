"""Tables of boxes: CSV with one row a box, in the columns that people use, and those of Open Images.

Understood are, in any order and in upper or lower case::

    image | filename | file_name | image_path | path | ImageID           which image
    class | label | name | category | class_name | LabelName            which class
    xmin ymin xmax ymax | x1 y1 x2 y2 | left top right bottom           corners
    x y w h | x y width height | left top width height                  corner and size
    cx cy w h | x_center y_center width height                          centre and size
    width height | image_width image_height                             size of the image, beside corners
    bbox                                                                [x, y, width, height] in one column
    split | set | subset                                                which split

Without a header the columns are image, xmin, ymin, xmax, ymax, class.
Numbers that are all in 0..1 are shares of the image. A row without a box is an image without objects. Open Images
(``XMin``, ``XMax`` ..., ``IsGroupOf``) names its classes in a second file, ``class-descriptions*.csv``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .errors import DatasetError
from .index import file_state
from .listing import (
    IMAGE_SUFFIXES,
    SPLIT_FOLDERS,
    ListedDataset,
    Listing,
    find_image,
    in_order,
    of_other_split,
    split_of_file,
)

IMAGE = (
    "image", "filename", "file_name", "image_path", "imagepath", "path", "image_name", "img", "file", "imageid",
    "image_id", "id",
)  # fmt: skip
LABEL = ("class", "label", "name", "category", "class_name", "labelname", "category_name", "label_name", "class_id")
SPLIT = ("split", "set", "subset", "partition", "usage")
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"),
)
WITHOUT_HEADER = ("image", *CORNERS[0], "class")
CENTRES = (
    ("cx", "cy", "w", "h"),
    ("x_center", "y_center", "width", "height"),
    ("xcenter", "ycenter", "width", "height"),
    ("center_x", "center_y", "width", "height"),
    ("x_center", "y_center", "w", "h"),
)
SIZES = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("x", "y", "bbox_w", "bbox_h"),
)


@dataclass(frozen=True)
class Columns:
    """Which column holds what; box: four columns, or one of all; ``form``: ``corners``, ``centre`` or ``size``."""

    image: str
    label: str | None
    box: tuple[str, ...]
    form: str
    split: str | None
    header: bool = True

    def numbers(self, row: dict[str, str]) -> list[str]:
        """The texts of a row's box: four, or none where the row has no box."""
        texts = [row.get(column, "").strip() for column in self.box]
        if len(texts) == 1:
            texts = texts[0].strip("[]()").replace(",", " ").split()
        return texts if any(texts) else []


class Csv(ListedDataset):
    """A table of boxes, scored by the COCO protocol; root: the CSV file, or a folder with one or one a split."""

    layout: ClassVar[str] = "csv"
    names_occur: ClassVar[bool] = True

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        files = tables(root)
        if len(files) == 1:
            columns, rows = read_rows(files[0])
            if columns.split is not None:
                splits = {SPLIT_FOLDERS.get(row[columns.split].strip().lower(), row[columns.split]) for row in rows}
                return in_order({split: (files[0], split) for split in sorted(splits)})
            return {"": (files[0], None)}
        named = {split_of_file(file): (file, None) for file in files}
        return in_order({name or file.stem: (file, None) for name, (file, _) in named.items()} if files else {})

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        return file_state([sources[0], *_descriptions(sources[0])]) + str(sources[1])

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        file, split = sources
        base = root if root.is_dir() else root.parent
        columns, rows = read_rows(file)
        names = _class_names(file)
        listing = Listing(base)
        folders = image_folders(base, file, split)
        places: dict[str, int | None] = {}
        shares = _are_shares(rows, columns)
        for number, row in enumerate(rows, 2 if columns.header else 1):
            own = row.get(columns.split or "", "").strip()
            if split is not None and SPLIT_FOLDERS.get(own.lower(), own) != split:
                continue
            stated = row[columns.image].strip()
            where = f"row {number}"
            if not stated:
                listing.fault("row without image", file, where, found=dict(row))
                continue
            if stated not in places:
                found = find_image(stated, folders)
                if found is None:
                    listing.fault("image is missing", file, where, found=stated, expected=[str(f) for f in folders])
                places[stated] = None if found is None else listing.image(found)
            place = places[stated]
            texts = columns.numbers(row)
            label = row.get(columns.label, "").strip() if columns.label else "object"
            if place is None or not texts:
                continue
            try:
                values = [float(text) for text in texts]
                box = _corners(values, columns.form)
            except ValueError:
                listing.fault("box is not four numbers", file, where, found=texts)
                continue
            if shares:
                h, w = listing.sizes[place]
                box = (box[0] * w, box[1] * h, box[2] * w, box[3] * h)
            if not label:
                listing.fault("box without class", file, where, found=texts)
                continue
            group = row.get("isgroupof", "").strip() in ("1", "true", "True")
            listing.object(place, names.get(label, label), file=file, where=where, box=box, crowd=group)
        return listing


def tables(root: Path) -> list[Path]:
    """The CSV files of boxes: the file itself, or those of a folder."""
    if root.is_file():
        return [root] if root.suffix.lower() in (".csv", ".tsv") and columns_of_file(root) else []
    files = [*sorted(root.glob("*.csv")), *sorted(root.glob("annotations/*.csv")), *sorted(root.glob("*/*.csv"))]
    return [file for file in dict.fromkeys(files) if columns_of_file(file) is not None]


def columns_of_file(file: Path) -> Columns | None:
    """The columns of a table of boxes, or none where it is no such table."""
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as stream:
        head = stream.readline()
    first = [value.strip() for value in next(csv.reader([head], delimiter=_delimiter(head)), [])]
    if _is_row(first):
        return Columns("image", "class", CORNERS[0], "corners", None, header=False)
    names = [name.lower() for name in first]
    image = next((name for name in IMAGE if name in names), None)
    label = next((name for name in LABEL if name in names and name != image), None)
    for form, choices in (("corners", CORNERS), ("centre", CENTRES), ("size", (*SIZES, ("bbox",)))):
        for choice in choices:
            if set(choice) <= set(names) and image is not None:
                return Columns(image, label, choice, form, next((name for name in SPLIT if name in names), None))
    return None


def _is_row(values: Sequence[str]) -> bool:
    """Whether the first line of a table is already a row: an image, four numbers or nothing, and a class."""
    if len(values) != len(WITHOUT_HEADER) or not values[0].lower().endswith(IMAGE_SUFFIXES):
        return False
    try:
        for value in values[1:5]:
            float(value)
    except ValueError:
        return not any(values[1:])
    return True


def read_rows(file: Path) -> tuple[Columns, list[dict[str, str]]]:
    """Columns and rows of a table. Raises DatasetError where it is no table of boxes."""
    columns = columns_of_file(file)
    if columns is None:
        raise DatasetError("not a table of boxes", file=file, expected="columns for image, class and four numbers")
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as stream:
        head = stream.readline()
        stream.seek(0)
        names = None if columns.header else WITHOUT_HEADER
        reader = csv.DictReader(stream, names, delimiter=_delimiter(head))
        rows = [{key.strip().lower(): value or "" for key, value in row.items() if key} for row in reader]
    return columns, rows


def _delimiter(head: str) -> str:
    return max(",;\t", key=head.count)


def _corners(values: Sequence[float], form: str) -> tuple[float, float, float, float]:
    a, b, c, d = values
    if form == "corners":
        return a, b, c, d
    if form == "centre":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, a + c, b + d


def _are_shares(rows: Sequence[dict[str, str]], columns: Columns) -> bool:
    """Whether all numbers are in 0..1, and so shares of the image."""
    found = False
    for row in rows:
        for text in columns.numbers(row):
            try:
                value = float(text)
            except ValueError:
                continue
            found = True
            if not -0.01 <= value <= 1.01:
                return False
    return found


def image_folders(base: Path, file: Path, split: str | None = None) -> list[Path]:
    """Where the images of an annotation file may lie: beside it, and in the folders that tools make.

    split: of the images, where it is another than the file's name or folder says.
    """
    split = split or split_of_file(file)
    roots = list(dict.fromkeys([file.parent, base, file.parent.parent]))
    names = [name for name, kind in SPLIT_FOLDERS.items() if kind == split] + [file.stem]
    candidates = [root / inner / name for root in roots for name in names for inner in ("images", "")]
    candidates += [root / inner for root in roots for inner in ("images", "imgs", "JPEGImages", "data", "")]
    found = [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]
    for root in roots[:2]:
        # Any other folder of images.
        found += [inner for inner in sorted(root.iterdir()) if inner.is_dir() and inner not in found and _images(inner)]
    return [folder for folder in found if folder in roots or not of_other_split(folder, split)]


def _images(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir())


def _descriptions(file: Path) -> list[Path]:
    return sorted(folder_file for folder_file in file.parent.glob("*class-descriptions*.csv"))


def _class_names(file: Path) -> dict[str, str]:
    """Class names by their identifier, as Open Images gives them in a file of two columns."""
    names: dict[str, str] = {}
    for described in _descriptions(file):
        with open(described, encoding="utf-8-sig", errors="replace", newline="") as stream:
            names |= {row[0].strip(): row[1].strip() for row in csv.reader(stream) if len(row) >= 2}
    return names
