"""LVIS v0.5 and v1: federated annotations of more than 1,200 classes on COCO images.

Official layout::

    lvis/lvis_v1_train.json  lvis_v1_val.json          (v1; also below annotations/)
    lvis/lvis_v0.5_train.json  lvis_v0.5_val.json      (v0.5)
    lvis/train2017/000000000009.jpg ...  val2017/      (the images of COCO 2017)

v1 names its images by ``coco_url`` alone, and images of its validation set lie in COCO's train2017.
Source: Gupta, Dollar, Girshick: LVIS, CVPR 2019; https://www.lvisdataset.org/dataset
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .adapter import IndexedDataset, OnFault, Splits, settle_faults, with_classes, with_present_images
from .coco import annotation_files, choose_file, find_images, has_images, instances_parts, read_instances, split_names
from .errors import DatasetError
from .index import Index, Ragged, cached


class Lvis(IndexedDataset):
    """LVIS, scored by its own protocol.

    root: folder with annotation files and COCO's image folders. version: ``v1`` or ``v0.5``, where both lie there.
    split: ``train``, ``val`` or the name of an annotation file without extension; without it, a folder with several
    opens as its training split and carries the others as ``.train`` and ``.val``.
    annotations, images: the file, and the folder that holds ``train2017`` or the images themselves, where they do not
    lie as above. classes: keep these only, in this order. on_fault: ``raise``, ``skip`` or ``repair``.

    ``annotations.neg_labels`` and ``annotations.not_exhaustive_labels`` say by image which classes were verified to
    be absent and which are not annotated to the last object; ``annotations.frequencies`` groups classes into rare,
    common and frequent. Raises DatasetError naming file, annotation and field.
    """

    absolute_names = False
    protocol = "lvis"

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        version: str | None = None,
        split: str | None = None,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        classes: Sequence[str] | None = None,
        on_fault: OnFault = "raise",
    ) -> None:
        splits = None
        if annotations is not None:
            file, name = Path(annotations), split or Path(annotations).stem
        elif root is None:
            raise DatasetError("where the dataset lies is not said", expected="root, or annotations and images")
        else:
            files = annotation_files(Path(root))
            if version is not None:
                files = {name: file for name, file in files.items() if version in name}
                if not files:
                    raise DatasetError("no annotation file of this version", file=root, field="version", found=version)
            if split is None and len(files) > 1:
                open_split = partial(Lvis, root, version=version, images=images, classes=classes, on_fault=on_fault)
                splits = Splits(split_names(files), open_split, first=self)
            name, file = choose_file(files, split, Path(root), images)
        repair = on_fault == "repair"

        def parsed(names_by: str) -> Index:
            return cached([file], ("lvis", repair, names_by), lambda: read_lvis(file, names_by=names_by, repair=repair))

        folder = Path(images) if images is not None else Path(root) if root is not None else file.parent
        index = parsed("coco_url")
        if not has_images(index, folder):
            by_name = parsed("file_name")
            named = folder if images is not None else find_images(by_name, folder, file, name)
            if has_images(by_name, named):
                index, folder = by_name, named
        index = with_classes(settle_faults(index, on_fault, file), classes, file)
        index = with_present_images(index, folder, on_fault)
        super().__init__(index=index, image_root=folder, splits=splits)


def read_lvis(file: Path, *, names_by: str, repair: bool = False) -> Index:
    """Parse an LVIS file: the columns of COCO with the federated ones.

    names_by: ``coco_url`` (``val2017/000000000139.jpg``) or ``file_name`` (v0.5). Raises DatasetError.
    """
    parts = instances_parts(file)
    index = read_instances(parts, repair=repair, image_name=_by_url if names_by == "coco_url" else _by_name)
    labels = {category_id: label for label, category_id in enumerate(index.category_ids)}
    frequencies = np.full(len(labels), "", "<U1")
    for entry in parts.elements("categories"):
        frequency = entry.get("frequency")
        if frequency not in ("r", "c", "f"):
            where = f"category {entry['id']}"
            raise DatasetError(
                "category without frequency",
                file=file,
                where=where,
                field="frequency",
                found=frequency,
                expected="r, c or f",
            )
        frequencies[labels[entry["id"]]] = frequency
    rows = {str(image_id): row for row, image_id in enumerate(index.annotations.image_ids.tolist())}
    negative: list[list[int]] = [[] for _ in rows]
    partial_classes: list[list[int]] = [[] for _ in rows]
    seen: set[str] = set()
    for entry in parts.elements("images"):
        key = str(entry.get("id")) if isinstance(entry, dict) else ""
        if key in rows and key not in seen:
            seen.add(key)
            negative[rows[key]] = _labels_of(file, entry, "neg_category_ids", labels)
            partial_classes[rows[key]] = _labels_of(file, entry, "not_exhaustive_category_ids", labels)
    columns = replace(
        index.annotations,
        neg_labels=Ragged.of(negative),
        not_exhaustive_labels=Ragged.of(partial_classes),
        frequencies=frequencies,
    )
    return replace(index, annotations=columns)


def _labels_of(file: Path, entry: dict[str, Any], field: str, labels: dict[int, int]) -> list[int]:
    ids = entry.get(field)
    if not isinstance(ids, list) or any(not isinstance(i, int) or i not in labels for i in ids):
        where = f"image {entry['id']}"
        raise DatasetError("not a list of category ids", file=file, where=where, field=field, found=ids)
    return [labels[i] for i in ids]


def _by_url(entry: dict[str, Any]) -> str | None:
    url = entry.get("coco_url")
    if not isinstance(url, str):
        return _by_name(entry)
    return "/".join(url.split("/")[-2:])


def _by_name(entry: dict[str, Any]) -> str | None:
    name = entry.get("file_name")
    if isinstance(name, str) or not isinstance(entry.get("coco_url"), str):
        return name
    return entry["coco_url"].rsplit("/", 1)[-1]
