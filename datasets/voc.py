"""Pascal VOC: XML annotations, in the devkit's layout with one or more years or in a flat folder.

Official layout::

    VOCdevkit/VOC2007/Annotations/000005.xml  JPEGImages/000005.jpg  ImageSets/Main/trainval.txt
    VOCdevkit/VOC2012/...

A flat folder holds ``Annotations``, ``JPEGImages`` and perhaps ``ImageSets/Main`` itself. Also read are ``annotations``
beside ``images``, ``annotations/xmls`` (Oxford-IIIT Pet), XML files beside the images (labelImg), such folders named
``train``, ``valid`` and ``test``, and ``annotations/train`` beside ``images/train``.

Coordinates count pixels from 1 and both ends belong to the box (devkit documentation, section 4.2); a ``Sample``'s box
is therefore (xmin - 1, ymin - 1, xmax, ymax), and the columns keep the stated numbers too.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from .adapter import (
    IndexedDataset,
    OnFault,
    Splits,
    fingerprint_of,
    settle_faults,
    with_classes,
    with_images,
    with_present_images,
)
from .combining import Concatenation, concat
from .errors import DatasetError, Fault
from .index import Builder, Index, cached, image_paths
from .listing import by_split_folder, recounted
from .reading import image_header

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
EXTENSIONS = (".jpg", ".jpeg", ".png", ".JPG", ".bmp", ".JPEG", ".PNG", ".tif", ".tiff", ".webp")
ANNOTATION_FOLDERS = ("Annotations", "annotations", "xmls", "labels")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs")


class Voc(IndexedDataset):
    """A dataset in Pascal VOC format, scored by VOC average precision; ``difficult`` objects are ignored.

    root: the VOCdevkit (or the folder that holds it), one of its years, or a flat folder. years: which years of a
    devkit; by default all that have the split. split: ``train``, ``val``, ``trainval``, ``test`` or the name of another
    list in ``ImageSets/Main``. Without it, a folder with several lists opens as its training split (``trainval`` where
    there is no separate ``val``) and carries the others as ``.train``, ``.val``, ``.test``; one without opens whole.
    classes: names in label order; by default the twenty of VOC, or, where other names occur, those that do.
    on_fault: ``raise``, ``skip`` or ``repair`` objects that cannot be used.

    Raises DatasetError naming file, object and field.
    """

    protocol = "voc"

    def __init__(
        self,
        root: str | Path,
        *,
        years: Sequence[int] | int | None = None,
        split: str | None = None,
        classes: Sequence[str] | None = None,
        on_fault: OnFault = "raise",
    ) -> None:
        root = devkit(Path(root))
        parts = split_folders(root)
        if parts:
            folders = [parts.get(split or "", next(iter(parts.values())))]
        else:
            folders = year_folders(root, years)
        lists = sorted({file.stem for folder in folders for file in (folder / "ImageSets" / "Main").glob("*.txt")})
        # The devkit's lists of one class (cow_train.txt) mark images with 1, 0 and -1; they are not splits.
        lists = [name for name in lists if not re.fullmatch(r"\w+_(train|val|trainval|test)", name)]
        splits = None
        if parts and (split is None or split in parts):
            if split is None and len(parts) > 1:
                open_split = partial(Voc, root, classes=classes, on_fault=on_fault)
                splits = Splits(list(parts), open_split, first=self)
            split = None
        elif split is None and lists:
            apart = "train" in lists and ("val" in lists or "trainval" not in lists)
            names = {"train": "train" if apart else "trainval", "val": "val", "test": "test"}
            present = [kind for kind, name in names.items() if name in lists] or lists
            split = names.get(present[0], present[0])
            open_split = partial(Voc, root, years=years, classes=classes, on_fault=on_fault)
            splits = Splits(present, open_split, first=self)
        if split is not None:
            if split not in lists:
                raise DatasetError("no such split", file=root, field="split", found=split, expected=" or ".join(lists))
            folders = [folder for folder in folders if (folder / "ImageSets" / "Main" / f"{split}.txt").is_file()]
        repair = on_fault == "repair"
        index = read_folders(root, folders, repair)
        if parts:
            # The classes are those of all splits.
            shown = set().union(*(occurring(read_folders(root, [folder], repair)) for folder in parts.values()))
            names = class_list(shown)
            index = index if index.classes == names else recounted(index, names)
        if split is not None:
            index = with_images(index, _listed(index, root, folders, split))
        index = with_classes(settle_faults(index, on_fault, root), classes, root)
        index = with_present_images(index, root, on_fault)
        super().__init__(index=index, image_root=root, splits=splits)

    @classmethod
    def trainval(cls, year: int, root: str | Path = "data/VOCdevkit") -> Voc:
        """The trainval split of one year; ``Voc.trainval(2007) + Voc.trainval(2012)`` is the usual union."""
        return cls(root, years=year, split="trainval")

    def __add__(self, other: Voc) -> Concatenation:
        return concat(self, other)


def read_folders(root: Path, folders: Sequence[Path], repair: bool) -> Index:
    """The annotations of some folders."""
    files = [file for folder in folders for file in sorted(annotations_of(folder).glob("*.xml"))]  # type: ignore[union-attr]
    # Images are named relative to the root, and by what is there.
    places = sorted({place for parent in {file.parent for file in files} for place in _image_folders(parent)})
    return cached(
        [*places, *files],
        ("voc", repair, str(root.resolve())),
        lambda: read_xml(root, files, repair=repair),
        lambda index: image_paths(index, root),
    )


def occurring(index: Index) -> set[str]:
    """The names of the classes that are on objects."""
    return {index.classes[label] for label in np.unique(index.annotations.labels).tolist()}


def class_list(found: Set[str]) -> tuple[str, ...]:
    """The twenty classes of VOC; where other names occur, those that do."""
    return CLASSES if found <= set(CLASSES) else tuple(sorted(found))


def devkit(root: Path) -> Path:
    """The folder that holds years or annotations. Raises DatasetError where there is none."""
    if not root.is_dir():
        raise DatasetError("dataset folder is missing", file=root)
    for folder in (root, root / "VOCdevkit"):
        if folder.is_dir() and annotation_folders(folder):
            return folder
    raise DatasetError("not a Pascal VOC folder", file=root, expected="Annotations/, or VOC<year>/Annotations/")


def year_folders(root: Path, years: Sequence[int] | int | None) -> list[Path]:
    """The folders with annotations. Raises DatasetError for a year that is not there."""
    if annotations_of(root) is not None:
        return [root]
    if years is None:
        return sorted(folder.parent for folder in root.glob("VOC[0-9]*/Annotations"))
    folders = [root / f"VOC{year}" for year in ([years] if isinstance(years, int) else years)]
    for folder in folders:
        if not (folder / "Annotations").is_dir():
            raise DatasetError("no such year", file=folder, expected="a folder with Annotations/")
    return folders


def annotation_folders(root: Path) -> list[Path]:
    """The folders below ``root`` (or itself) that hold VOC annotations: as a devkit, flat, or one a split."""
    if annotations_of(root) is not None:
        return [root]
    years = sorted(folder.parent for folder in root.glob("VOC[0-9]*/Annotations"))
    return years or list(split_folders(root).values())


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of a dataset that has one a split, as Roboflow writes them."""
    if annotations_of(root) is not None or any(root.glob("VOC[0-9]*/Annotations")):
        return {}
    places = [root, *(root / name for name in ANNOTATION_FOLDERS if (root / name).is_dir())]
    found = (by_split_folder(place, lambda folder: annotations_of(folder) is not None) for place in places)
    return next(filter(None, found), {})


def annotations_of(folder: Path) -> Path | None:
    """Where the XML files of a folder lie: in a folder of annotations, or beside the images."""
    for name in (*ANNOTATION_FOLDERS, "annotations/xmls", "Annotations/xmls", ""):
        first = next((folder / name).glob("*.xml"), None)
        if (name == "Annotations" and (folder / name).is_dir()) or (first is not None and is_voc(first)):
            return folder / name
    return None


def is_voc(file: Path) -> bool:
    """Whether the head of an XML file looks like Pascal VOC's."""
    with open(file, "rb") as stream:
        # labelImg writes an attribute: <annotation verified="yes">.
        return re.search(rb"<annotation[\s>]", stream.read(4096)) is not None


def read_xml(root: Path, files: Sequence[Path], *, repair: bool = False) -> Index:
    """Parse annotation files into columns; image names are relative to ``root``.

    Objects that cannot be used are left out and listed as faults. repair: exchanged ends of a box are put in order.
    """
    builder, faults = Builder(), []
    parsed: list[tuple[str, int, str, tuple[float, float, float, float], bool]] = []
    stems = Counter(file.stem for file in files)
    folders = {parent: _image_folders(parent) for parent in {file.parent for file in files}}
    for file in files:
        # Years number their images alike; an id that is not unique gets its year.
        image_id = file.stem if stems[file.stem] == 1 else f"{file.parent.parent.name}/{file.stem}"
        image = _read_image_entry(root, file, folders[file.parent], image_id, builder, faults)
        if image is None:
            continue
        place, tree = image
        for number, element in enumerate(tree.iter("object"), 1):
            entry = read_object(file, number, element, repair, faults)
            if entry is not None:
                parsed.append((f"{image_id} object {number}", place, *entry))
    classes = class_list({name for _, _, name, _, _ in parsed})
    labels = {name: label for label, name in enumerate(classes)}
    for annotation_id, place, name, (x1, y1, x2, y2), difficult in parsed:
        builder.annotation(
            annotation_id,
            place,
            box=(x1 - 1, y1 - 1, x2, y2),
            stated=(x1, y1, x2, y2),
            label=labels[name],
            area=(x2 - x1 + 1) * (y2 - y1 + 1),
            ignore=difficult,
        )
    annotations = builder.finish(box_format="voc", masks=False)
    stated = annotations.stated_boxes
    # Equal ends are a click without extent, though the protocol's +1 gives them a pixel.
    annotations = replace(annotations, usable=annotations.usable & (stated[:, 2:] > stated[:, :2]).all(1))
    return Index(
        annotations=annotations,
        classes=classes,
        category_ids=tuple(range(1, len(classes) + 1)),
        fingerprint=fingerprint_of(annotations, classes),
        faults=tuple(faults),
    )


def _read_image_entry(
    root: Path, file: Path, folders: Sequence[Path], image_id: str, builder: Builder, faults: list[Fault]
) -> tuple[int, ElementTree.Element] | None:
    """(place of the image, XML tree); none where the file is faulty."""
    tree = parse_xml(file, faults)
    if tree is None:
        return None
    image = _image_file(file, tree.findtext("filename"), folders)
    h, w = _number(tree.findtext("size/height")), _number(tree.findtext("size/width"))
    if h is None or w is None or h < 1 or w < 1:
        # Some writers leave the size out or zero; the image's header knows it.
        try:
            (h, w), orientation = image_header(image)
        except DatasetError:
            stated = f"{tree.findtext('size/height')} x {tree.findtext('size/width')}"
            faults.append(Fault("image without size", str(file), field="size", found=stated))
            return None
        h, w = (w, h) if orientation >= 5 else (h, w)
    return builder.image(image_id, (int(h), int(w)), image.relative_to(root).as_posix()), tree


def parse_xml(file: Path, faults: list[Fault]) -> ElementTree.Element | None:
    """The tree of an annotation file; none, and a fault, where it is not XML."""
    try:
        content = file.read_bytes()
        # They could be made to grow without end, or to name other files; annotation tools write none.
        if b"<!ENTITY" in content:
            faults.append(Fault("XML with entities of its own is not read", str(file)))
            return None
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        faults.append(Fault("not an annotation in XML", str(file), found=str(error)))
        return None


def _image_folders(annotations: Path) -> list[Path]:
    """Where the images of a folder of annotation files may lie."""
    above = annotations.parent
    candidates = [above / name for name in IMAGE_FOLDERS]
    if above.name in ANNOTATION_FOLDERS:
        # annotations/train beside images/train, or annotations/xmls beside images.
        candidates += [above.parent / name / annotations.name for name in IMAGE_FOLDERS]
        candidates += [above.parent / name for name in IMAGE_FOLDERS]
    return [folder for folder in candidates if folder.is_dir()] + [annotations]


def _image_file(file: Path, stated: str | None, folders: Sequence[Path]) -> Path:
    """The image of an annotation file: named like the file, else as the annotation says."""
    names = [file.stem + extension for extension in EXTENSIONS]
    if stated and stated.strip():
        # With folders of another machine, and sometimes without its ending.
        name = Path(stated.strip().replace("\\", "/")).name
        names += [name, *(name + extension for extension in EXTENSIONS)]
    found = (folder / name for folder in folders for name in names if (folder / name).is_file())
    return next(found, folders[0] / names[0])


def read_object(
    file: Path, number: int, element: ElementTree.Element, repair: bool, faults: list[Fault]
) -> tuple[str, tuple[float, float, float, float], bool] | None:
    """(class name, stated box, difficult); none where the object cannot be used."""
    name = (element.findtext("name") or "").strip()
    where = f"object {number} {name!r}"
    if not name:
        faults.append(Fault("object without name", str(file), where, "name"))
        return None
    values = [_number(element.findtext(f"bndbox/{end}")) for end in ("xmin", "ymin", "xmax", "ymax")]
    stated = [element.findtext(f"bndbox/{end}") for end in ("xmin", "ymin", "xmax", "ymax")]
    if any(value is None or abs(value) > 1e9 for value in values):
        faults.append(Fault("box is not four numbers", str(file), where, "bndbox", repr(stated)))
        return None
    x1, y1, x2, y2 = (float(value) for value in values if value is not None)
    if x2 < x1 or y2 < y1:
        faults.append(Fault("box with exchanged ends", str(file), where, "bndbox", repr(stated)))
        if not repair:
            return None
        x1, y1, x2, y2 = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        faults.append(Fault("difficult is neither 0 nor 1", str(file), where, "difficult", difficult))
        if not repair:
            return None
    return name, (x1, y1, x2, y2), difficult == "1"


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _listed(index: Index, root: Path, folders: Sequence[Path], split: str) -> np.ndarray:
    """Places of the images that the split's lists name, in their order. Raises DatasetError for one without XML."""
    files = index.annotations.image_files
    places = {str(Path(files[i]).with_suffix("")): i for i in range(len(files))}
    faulty = {fault.file for fault in index.faults}
    listed = []
    for folder in folders:
        source = folder / "ImageSets" / "Main" / f"{split}.txt"
        for number, line in enumerate(source.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            name = line.split()[0]
            annotation = folder / "Annotations" / f"{name}.xml"
            relative = folder.relative_to(root)
            place = places.get(str(relative / "JPEGImages" / name), places.get(str(relative / "Annotations" / name)))
            if place is not None:
                listed.append(place)
            elif str(annotation) not in faulty:
                raise DatasetError(
                    "image without annotation file",
                    file=source,
                    where=f"line {number}",
                    found=name,
                    expected=annotation,
                )
    return np.array(listed, np.int64)
