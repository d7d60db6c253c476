"""From a folder or file to the adapter that reads it."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from .adapter import OnFault
from .errors import DatasetError
from .listing import IMAGE_SUFFIXES, SPLIT_FOLDERS, of_other_split, split_of, split_of_file


@dataclass(frozen=True)
class Layout:
    """A layout: its name, the adapter's module and class, what a folder of it holds, and how one is recognized."""

    name: str
    adapter: tuple[str, str]
    holds: str
    fits: Callable[[Path], bool]

    def open(self, source: Path, split: str | None, on_fault: OnFault) -> Any:
        """The dataset at a folder or file."""
        module, name = self.adapter
        made = getattr(import_module(f".{module}", __package__), name)
        if self.name == "coco" and source.is_file():
            return made(annotations=source, images=_beside(source), split=split, on_fault=on_fault)
        return made(source, split=split, on_fault=on_fault)


def _any(folder: Path, *patterns: str) -> bool:
    return folder.is_dir() and any(any(folder.glob(pattern)) for pattern in patterns)


def _lists(kind: str) -> Callable[[Path], bool]:
    """Whether an adapter of ``ListedDataset`` finds its files."""

    def fits(source: Path) -> bool:
        module, name = next(layout.adapter for layout in LAYOUTS if layout.name == kind)
        try:
            return bool(getattr(import_module(f".{module}", __package__), name).parts(source))
        except DatasetError:
            # It is of this layout, and what is wrong with it is told when it is opened.
            return True

    return fits


def _coco(source: Path) -> bool:
    if source.is_file():
        return source.suffix == ".json" and _instances(source)
    from .coco import annotation_files

    try:
        return any(_instances(file) for file in annotation_files(source).values())
    except DatasetError:
        return False


def _instances(file: Path) -> bool:
    """Whether a JSON file is an object with images and categories at its top; looks at its head and its end."""
    with open(file, "rb") as stream:
        head = stream.read(1 << 20)
        stream.seek(max(0, file.stat().st_size - (1 << 20)))
        text = head + stream.read()
    if not text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or b'"shapes"' in text:
        return False
    return sum(f'"{key}"'.encode() in text for key in ("images", "annotations", "categories")) >= 2


def _voc(source: Path) -> bool:
    from .voc import annotation_folders

    return any(folder.is_dir() and annotation_folders(folder) for folder in (source, source / "VOCdevkit"))


def _yolo(source: Path) -> bool:
    if source.is_file():
        return source.suffix in (".yaml", ".yml", ".data")
    from .yolo import description

    # Its splits are found once, when it is opened.
    return description(source) is not None or _lists("yolo")(source)


# From the most particular to the least; the first that fits is taken.
LAYOUTS = (
    Layout("cityscapes", ("cityscapes", "Cityscapes"), "gtFine/ and leftImg8bit/", lambda f: _any(f, "gtFine")),
    Layout(
        "wider_face",
        ("wider_face", "WiderFace"),
        "wider_face_split/ and WIDER_train/",
        lambda f: _any(f, "wider_face_split", "WIDER_*"),
    ),
    Layout(
        "lvis", ("lvis", "Lvis"), "lvis_v1_train.json", lambda f: _any(f, "lvis_v*.json", "annotations/lvis_v*.json")
    ),
    Layout(
        "deepfashion",
        ("deepfashion", "DeepFashion"),
        "DeepFashion_segmentation*.json",
        # Named one by one: a search at any depth would go through every folder of images.
        lambda f: _any(
            f,
            *(
                f"{place}{inner}DeepFashion_segmentation*.json"
                for place in ("", "In-shop/", "DeepFashion/", "DeepFashion/In-shop/")
                for inner in ("", "Anno/", "Anno/segmentation/", "annotations/", "data/")
            ),
        ),
    ),
    Layout("cvat", ("annotation_tools", "Cvat"), "annotations.xml with <image> elements", _lists("cvat")),
    Layout("yolo", ("yolo", "Yolo"), "data.yaml, or images/ with labels/*.txt", _yolo),
    Layout("coco", ("coco", "Coco"), "a JSON file with images, annotations and categories", _coco),
    Layout("voc", ("voc", "Voc"), "XML files in Annotations/ or beside the images", _voc),
    Layout("labelme", ("annotation_tools", "LabelMe"), "JSON files with shapes and imagePath", _lists("labelme")),
    Layout("via", ("annotation_tools", "Via"), "a JSON file with filename and regions", _lists("via")),
    Layout("createml", ("record_files", "CreateMl"), "a JSON list with image and coordinates", _lists("createml")),
    Layout(
        "label_studio", ("record_files", "LabelStudio"), "a JSON list of tasks with results", _lists("label_studio")
    ),
    Layout("labelbox", ("record_files", "Labelbox"), "*.ndjson with data_row and projects", _lists("labelbox")),
    Layout("odgt", ("record_files", "Odgt"), "*.odgt with gtboxes", _lists("odgt")),
    Layout(
        "supervisely", ("supervisely", "Supervisely"), "meta.json and folders with ann/ and img/", _lists("supervisely")
    ),
    Layout("kitti", ("kitti", "Kitti"), "label_2/ or labels/ of 15 values a line beside images", _lists("kitti")),
    Layout("csv", ("tables", "Csv"), "a CSV file with columns for image, class and four numbers", _lists("csv")),
    Layout("parquet", ("packed", "Parquet"), "*.parquet with image and objects", _lists("parquet")),
    Layout(
        "imagefolder", ("packed", "ImageFolder"), "metadata.jsonl with file_name and objects", _lists("imagefolder")
    ),
    Layout("webdataset", ("packed", "Shards"), "*.tar with images and JSON files", _lists("webdataset")),
)
KINDS = tuple(layout.name for layout in LAYOUTS)


def open_path(text: str, *, split: str | None = None, on_fault: OnFault = "raise") -> Any:
    """The dataset that a path, ``kind:path``, ``shapes`` or ``shapes:N`` stands for.

    Raises:
        DatasetError: when there is nothing, or its layout is not recognized.
    """
    kind, colon, place = text.partition(":")
    if text == "shapes" or (colon and kind == "shapes"):
        from .shapes import Shapes

        if place and not place.isdigit():
            raise DatasetError("not a number of images", found=text, expected="shapes, or shapes:1000")
        made = Shapes(int(place)) if place else Shapes()
        return made if split is None else getattr(made, split)
    named = kind if colon and kind in KINDS else None
    source = Path(place if named else text).expanduser()
    if not source.exists():
        raise DatasetError(f"no such folder or file{closest(source, text)}", file=text)
    return open_layout(source, named, split=split, on_fault=on_fault)


def closest(source: Path, text: str) -> str:
    """What may have been meant by a path that is not there."""
    if source.parent.is_dir():
        close = difflib.get_close_matches(source.name, [entry.name for entry in source.parent.iterdir()], n=3)
        if close:
            return f"; there is {' and '.join(str(source.parent / name) for name in close)}"
    names = difflib.get_close_matches(text.partition(":")[0], [*KINDS, "shapes"], n=1)
    return f"; expected a path, or one of {', '.join(KINDS)} with ':path'" + (f" ({names[0]}?)" if names else "")


def open_layout(source: Path, kind: str | None = None, *, split: str | None = None, on_fault: OnFault = "raise") -> Any:
    """The dataset at a folder or file, by the layout that it shows, or by the one that is named.

    Raises:
        DatasetError: when the layout is not recognized; says what was looked for, what was found, and the nearest.
    """
    if kind is not None:
        return next(layout for layout in LAYOUTS if layout.name == kind).open(source, split, on_fault)
    place, layout = recognized(source)
    return layout.open(place, split, on_fault)


def recognized(source: Path) -> tuple[Path, Layout]:
    """Where a dataset lies, and its layout: the folder or file itself, or the only folder in it.

    Raises:
        DatasetError: when it shows none.
    """
    for layout in LAYOUTS:
        if layout.fits(source):
            return source, layout
    inner = [entry for entry in source.iterdir() if entry.is_dir()] if source.is_dir() else []
    if len(inner) == 1 and any(layout.fits(inner[0]) for layout in LAYOUTS):
        # What archives unpack to.
        return recognized(inner[0])
    looked_for = "; ".join(f"{layout.name}: {layout.holds}" for layout in LAYOUTS)
    raise DatasetError(
        f"has no layout that is known here, {nearest(source)}", file=source, found=contents(source), expected=looked_for
    )


def contents(source: Path) -> str:
    """What a folder holds, in short."""
    if source.is_file():
        return f"a {source.suffix or 'nameless'} file of {source.stat().st_size} bytes"
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in source.iterdir())
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "nothing"


def nearest(source: Path) -> str:
    """The layout that lacks least, and what it lacks."""
    if source.is_file():
        return "and a single file can be COCO JSON, CVAT XML, YOLO YAML, CSV, Parquet or tar"
    inner = [entry for entry in source.iterdir() if entry.is_dir()]
    deeper = [folder for folder in inner if any(layout.fits(folder) for layout in LAYOUTS)]
    if deeper:
        return f"but {deeper[0].name}/ in it has one"
    names = {entry.name.lower() for entry in source.iterdir()}
    suffixes: dict[str, Path] = {}
    for parent, _, files in os.walk(source):
        for name in files:
            suffixes.setdefault(os.path.splitext(name)[1].lower(), Path(parent, name))
    if {"jpegimages", "annotations", "imagesets"} & names and ".xml" not in suffixes:
        return "nearest is voc, which lacks XML files"
    if ".json" in suffixes:
        return f"nearest is coco, but {_lacking(source)}"
    images = next((suffixes[suffix] for suffix in IMAGE_SUFFIXES if suffix in suffixes), None)
    if ".xml" in suffixes:
        example = suffixes[".xml"].relative_to(source)
        return f"nearest is voc, but {example} has no <annotation>, or lies where none is looked for"
    if ".csv" in suffixes:
        with open(suffixes[".csv"], encoding="utf-8-sig", errors="replace") as stream:
            head = stream.readline(200).strip()
        return f"nearest is csv, but {suffixes['.csv'].relative_to(source)} has the columns {head!r}"
    if ".jsonl" in suffixes:
        example = suffixes[".jsonl"].relative_to(source)
        return f"nearest is imagefolder, but {example} is not metadata.jsonl with file_name and objects"
    if ".txt" in suffixes or "labels" in names:
        if images is None:
            return "nearest is yolo, which lacks images beside its labels"
        example = suffixes[".txt"].relative_to(source) if ".txt" in suffixes else "labels/"
        return (
            f"nearest is yolo, but {example} does not belong to {images.relative_to(source)} or another image: "
            "images/a.jpg needs labels/a.txt with 'class cx cy w h' in its lines"
        )
    if images is not None:
        split = next((name for name in names if name in SPLIT_FOLDERS), None)
        where = f" (and {split}/ looks like a split)" if split else ""
        return f"there are images but no annotations{where}"
    return "there are neither images nor annotations"


def _lacking(source: Path) -> str:
    """What the JSON files of a folder lack for being COCO's."""
    for file in sorted(source.rglob("*.json"))[:20]:
        try:
            content = json.loads(file.read_bytes()[: 1 << 24])
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            missing = [key for key in ("images", "annotations", "categories") if key not in content]
            return f"{file.relative_to(source)} lacks {', '.join(missing)}"
        return f"{file.relative_to(source)} is a list, as results files are"
    return "none of its JSON files can be read"


def _beside(file: Path) -> Path | None:
    """The folder in which the images of an annotation file lie; none leaves the search to the adapter."""
    try:
        from .coco import image_names

        names, split = image_names(file), split_of_file(file)
    except DatasetError:
        return None
    for place in (file.parent, file.parent.parent, file.parent / "images", file.parent.parent / "images"):
        inner = [entry for entry in place.iterdir() if entry.is_dir()] if place.is_dir() else []
        inner = [entry for entry in inner if not of_other_split(entry, split)]
        # Folders of the own split before others.
        for folder in (place, *sorted(inner, key=lambda entry: (split_of(entry.name) != split, entry))):
            if any((folder / name).is_file() for name in names):
                return folder
    return file.parent
