"""Cityscapes instances, straight from the official maps or through a file converted to COCO's format.

Official layout::

    cityscapes/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    cityscapes/gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png   or ..._gtFine_polygons.json

Instance maps hold ``label id * 1000 + number`` for single objects and the label id alone for a group that could not be
told apart (cityscapesScripts, ``json2instanceImg``); groups are ignore regions. Source: Cordts et al., CVPR 2016.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .adapter import (
    IndexedDataset,
    OnFault,
    Splits,
    fingerprint_of,
    settle_faults,
    with_classes,
    with_present_images,
)
from .coco import instances_parts, read_instances
from .errors import DatasetError, Fault
from .index import Builder, Index, cached
from .masks import bounding_box, check_polygons, check_size, encode
from .reading import image_header, read_bytes, read_map

# The eight classes with instances that are scored, by label id.
CLASSES = {
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
PHOTO, INSTANCES, POLYGONS = "_leftImg8bit.png", "_gtFine_instanceIds.png", "_gtFine_polygons.json"


class Cityscapes(IndexedDataset):
    """Cityscapes with its eight instance classes, scored by the official instance-level protocol.

    root: folder with ``leftImg8bit`` and ``gtFine``. split: ``train``, ``val`` or ``test``; without it, a folder with
    several opens as its training split and carries the others as ``.train``, ``.val``, ``.test``.
    annotations, images: a converted COCO file and the folder its image names start from, in place of ``root``.
    classes: keep these only, in this order. on_fault: ``raise``, ``skip`` or ``repair``.

    Image ids are names such as ``frankfurt_000000_000294`` (those of the file, where it is a converted one).
    Raises DatasetError naming file and field.
    """

    protocol = "cityscapes"

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        split: str | None = None,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        classes: Sequence[str] | None = None,
        on_fault: OnFault = "raise",
    ) -> None:
        splits = None
        repair = on_fault == "repair"
        if annotations is not None:
            source = Path(annotations)
            folder = Path(images) if images is not None else source.parent
            index = cached(
                [source], ("cityscapes", repair), lambda: read_instances(instances_parts(source), repair=repair)
            )
            unknown = sorted(set(index.classes) - set(CLASSES))
            if unknown:
                raise DatasetError("not a class of Cityscapes", file=source, field="categories", found=unknown)
        elif root is None:
            raise DatasetError("where the dataset lies is not said", expected="root, or annotations and images")
        else:
            folder = Path(root)
            names = split_folders(folder)
            if split is None:
                if len(names) > 1:
                    open_split = partial(Cityscapes, root, classes=classes, on_fault=on_fault)
                    splits = Splits(names, open_split, first=self)
                split = names[0]
            if split not in names:
                raise DatasetError(
                    "no such split", file=folder, field="split", found=split, expected=" or ".join(names)
                )
            source = folder / "gtFine" / split
            maps = annotation_maps(folder, split)
            settings = ("cityscapes", split, str(folder.resolve()), *maps)
            index = cached(maps.values(), settings, lambda: read_maps(folder, split, maps))
        index = with_classes(settle_faults(index, on_fault, source), classes, source)
        index = with_present_images(index, folder, on_fault)
        super().__init__(index=index, image_root=folder, splits=splits)


def split_folders(root: Path) -> list[str]:
    """The splits that lie there. Raises DatasetError for none."""
    if not root.is_dir():
        raise DatasetError("dataset folder is missing", file=root)
    names = [
        s for s in ("train", "val", "test") if (root / "gtFine" / s).is_dir() or (root / "leftImg8bit" / s).is_dir()
    ]
    if not names:
        raise DatasetError("not a Cityscapes folder", file=root, expected="gtFine/<split>/<city>/ and leftImg8bit/")
    return names


def annotation_maps(root: Path, split: str) -> dict[str, Path]:
    """By image name, its instance map, or its polygons where there is no map, or its photo where there is neither."""
    found: dict[str, Path] = {}
    for folder, ending in (("gtFine", INSTANCES), ("gtFine", POLYGONS), ("leftImg8bit", PHOTO)):
        for file in sorted((root / folder / split).glob(f"*/*{ending}")):
            found.setdefault(file.name.removesuffix(ending), file)
    if not found:
        raise DatasetError("the split has no images", file=root / "gtFine" / split, expected=f"<city>/*{INSTANCES}")
    return dict(sorted(found.items()))


def read_maps(root: Path, split: str, maps: dict[str, Path]) -> Index:
    """Columns from instance maps or polygons; an image that cannot be used is left out and listed as a fault."""
    labels = {label_id: label for label, label_id in enumerate(CLASSES.values())}
    annotated = [file for file in maps.values() if not file.name.endswith(PHOTO)]
    builder, faults = Builder(), []
    for name, file in maps.items():
        try:
            if file in annotated:
                instances = read_map(file) if file.suffix == ".png" else draw_polygons(file)
                size = check_size(instances.shape)
            elif annotated:
                raise DatasetError("photo without annotations", file=file)
            else:
                instances, (size, _) = None, image_header(file)
        except DatasetError as error:
            faults.append(
                Fault(
                    error.problem,
                    str(file),
                    field=error.field,
                    found=None if error.found is None else repr(error.found),
                )
            )
            continue
        photo = f"leftImg8bit/{split}/{file.parent.name}/{name}{PHOTO}"
        place = builder.image(name, size, photo)
        for number in np.unique(instances).tolist() if instances is not None else ():
            group = number < 1000
            label = labels.get(number if group else number // 1000)
            if label is None:
                continue
            mask = instances == number
            rle = encode(mask)
            x1, y1, x2, y2 = bounding_box(rle)
            builder.annotation(
                len(builder) + 1,
                place,
                box=(x1, y1, x2, y2),
                stated=(x1, y1, x2 - x1, y2 - y1),
                label=label,
                area=float(np.count_nonzero(mask)),
                ignore=group,
                crowd=group,
                counts=rle["counts"],
            )
    annotations = builder.finish(masks=True)
    return Index(
        annotations=annotations,
        classes=tuple(CLASSES),
        category_ids=tuple(CLASSES.values()),
        fingerprint=fingerprint_of(annotations, tuple(CLASSES)),
        faults=tuple(faults),
    )


def draw_polygons(file: Path) -> np.ndarray:
    """(H, W) int32 instance map of a polygons file. Polygons lie over each other in their order: those of other
    classes hide what is behind them. Raises DatasetError."""
    try:
        content = json.loads(read_bytes(file))
        size = check_size((content["imgHeight"], content["imgWidth"]))
        objects = [(entry["label"], entry["polygon"], entry.get("deleted", 0)) for entry in content["objects"]]
    except DatasetError as error:
        raise DatasetError(error.problem, file=file, field="imgHeight, imgWidth", found=error.found) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"not a Cityscapes polygons file: {error!r}", file=file) from None
    canvas = Image.new("I", (size[1], size[0]))
    pencil = ImageDraw.Draw(canvas)
    numbers = dict.fromkeys(CLASSES, 0)
    for place, (label, polygon, deleted) in enumerate(objects):
        # License plates (id -1) are not drawn: they are part of their car.
        if deleted or label == "license plate":
            continue
        try:
            flat = [value for point in polygon for value in point]
            points = check_polygons([flat], size)[0]
        except (DatasetError, TypeError) as error:
            raise DatasetError(
                f"polygon cannot be drawn: {error}", file=file, where=f"objects[{place}] {label!r}", field="polygon"
            ) from None
        value = 0
        if label in CLASSES:
            value = CLASSES[label] * 1000 + numbers[label]
            numbers[label] += 1
        elif isinstance(label, str) and label.removesuffix("group") in CLASSES:
            value = CLASSES[label.removesuffix("group")]
        pencil.polygon(points, fill=value)
    return np.asarray(canvas)
