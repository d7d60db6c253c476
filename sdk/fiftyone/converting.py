"""Datasets to FiftyOne and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..datasets.adapter import IndexedDataset
from ..datasets.base import DetectionDataset
from ..datasets.errors import DatasetError
from ..datasets.index import NO_SEGMENT, Annotations, Builder, Index, Ragged, cache_folder, columns_of
from ..errors import SdkError
from ..evaluators.matching import COCO_AREAS
from ..reports.pictures import save_image
from ..reports.progress import say
from .labels import box_of, counts_of, to_label
from .starting import start

GROUND_TRUTH = "ground_truth"
SIZES = {"s": "small", "m": "medium", "l": "large"}


def to_fiftyone(dataset: DetectionDataset, name: str | None = None) -> Any:
    """A dataset as a persistent FiftyOne dataset with the field ``ground_truth``.

    Labels carry the mask cut to the box, ``annotation_id``, ``category_id``, ``ignore``, ``iscrowd``, ``area`` (square
    pixels), ``object_size`` (small, medium or large as in COCO) and, for LVIS, ``frequency``; samples carry
    ``image_id`` and metadata. Everything that the annotations state is there, also what training leaves out.

    A dataset of the same content is opened again instead of written, with the tags and edits that it has by now. One
    without image files (drawn on the fly) has its images written to the cache folder.

    Args:
        name: of the FiftyOne dataset; by default the kind and the start of the fingerprint.

    Raises:
        SdkError: when ``name`` belongs to other content, or the database cannot be reached.
        DatasetError: when an image is needed, for its size, and missing.
    """
    fo = start()
    name = name or f"{type(dataset).__name__.lower()}-{dataset.fingerprint[:12]}"
    if fo.dataset_exists(name):
        made = fo.load_dataset(name)
        if made.info.get("fingerprint") != dataset.fingerprint:
            raise SdkError(
                f"the FiftyOne dataset {name!r} holds other data; give another name, or delete it: "
                f"fiftyone datasets delete {name!r}"
            )
        if made.info.get("complete"):
            _follow_images(made, dataset)
            return made
        fo.delete_dataset(name)
    columns = columns_of(dataset)
    paths = image_paths(dataset)
    made = fo.Dataset(name, persistent=True)
    _declare(fo, made, columns)
    made.default_classes = [str(c) for c in dataset.classes]
    made.info = {
        "fingerprint": dataset.fingerprint,
        "classes": [str(c) for c in dataset.classes],
        "category_ids": [int(i) for i in dataset.category_ids],
        "protocol": getattr(dataset, "protocol", "coco"),
        "frequencies": None if columns.frequencies is None else [str(f) for f in columns.frequencies],
        "masks": columns.segments is not None,
        "ground_truth": _sets_of(dataset),
    }
    samples = _samples(fo, dataset, columns, paths)
    made.add_samples(samples, dynamic=False, validate=False, num_samples=len(paths))
    made.info["complete"] = True
    made.save()
    return made


def _sets_of(dataset: DetectionDataset) -> str | None:
    """The folder of the three sets of WIDER FACE; none for other datasets and where it is missing."""
    try:
        folder = getattr(dataset, "ground_truth", None)
    except DatasetError:
        return None
    return None if folder is None else os.path.abspath(folder)


def image_paths(dataset: DetectionDataset) -> list[str]:
    """Absolute path of every image; images without a file are written to the cache folder first."""
    paths = [dataset.info(i).path for i in range(len(dataset))]
    missing = [i for i, path in enumerate(paths) if path is None]
    if missing:
        folder = cache_folder() / "images" / dataset.fingerprint[:32]
        folder.mkdir(parents=True, exist_ok=True)
        say(f"{len(missing)} images have no file; they are written to {folder}")
        for i in missing:
            file = folder / f"{i:06d}.png"
            if not file.exists():
                save_image(file, dataset[i].image)
            paths[i] = str(file)
    return [os.path.abspath(path) for path in paths]  # type: ignore[type-var]


def _follow_images(made: Any, dataset: DetectionDataset) -> None:
    """Points a FiftyOne dataset at images that were moved since it was made."""
    first = dataset.info(0).path if len(dataset) else None
    if first is not None and made.first().filepath != os.path.abspath(first):
        by_id = {str(dataset.info(i).image_id): path for i, path in enumerate(image_paths(dataset))}
        made.set_values("filepath", [by_id[str(i)] for i in made.values("image_id")])


def _declare(fo: Any, made: Any, columns: Annotations) -> None:
    """Says what fields there are, so that the App offers them all from the start."""

    def of(ids: np.ndarray) -> Any:
        return fo.IntField if ids.dtype.kind in "iu" else fo.StringField

    made.add_sample_field("image_id", of(columns.image_ids))
    made.add_sample_field(GROUND_TRUTH, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    label = f"{GROUND_TRUTH}.detections"
    kinds = {
        "annotation_id": of(columns.annotation_ids),
        "category_id": fo.IntField,
        "iscrowd": fo.BooleanField,
        "ignore": fo.BooleanField,
        "area": fo.FloatField,
        "object_size": fo.StringField,
    }
    for name, kind in kinds.items():
        made.add_sample_field(f"{label}.{name}", kind)
    if columns.frequencies is not None:
        made.add_sample_field(f"{label}.frequency", fo.StringField)
    for name in ("neg_labels", "not_exhaustive_labels"):
        if getattr(columns, name) is not None:
            made.add_sample_field(name, fo.ListField, subfield=fo.StringField)


def _samples(fo: Any, dataset: DetectionDataset, columns: Annotations, paths: Sequence[str]) -> Iterator[Any]:
    """The samples one by one, so that memory stays flat."""
    classes = [str(c) for c in dataset.classes]
    for image, path in enumerate(paths):
        size = image_size(columns, image, path)
        sample = fo.Sample(filepath=path, image_id=columns.image_ids[image].item())
        sample["metadata"] = fo.ImageMetadata(width=size[1], height=size[0], num_channels=3)
        for name in ("neg_labels", "not_exhaustive_labels"):
            rows = getattr(columns, name)
            if rows is not None:
                sample[name] = [classes[label] for label in rows[image]]
        labels = []
        rows = columns.rows(image)
        for row in range(rows.start, rows.stop):
            label = int(columns.labels[row])
            masked = columns.segments is not None and columns.segments.kind(row) != NO_SEGMENT
            area = float(columns.areas[row])
            labels.append(
                to_label(
                    fo,
                    classes[label],
                    columns.boxes[row],
                    size,
                    columns.segmentation(row)["counts"] if masked else None,
                    annotation_id=columns.annotation_ids[row].item(),
                    category_id=int(dataset.category_ids[label]),
                    ignore=bool(columns.ignore[row]),
                    iscrowd=bool(columns.crowd[row]),
                    area=area,
                    object_size=next(
                        SIZES[k] for k, (low, high) in COCO_AREAS.items() if k in SIZES and low <= area <= high
                    ),
                    frequency=None if columns.frequencies is None else str(columns.frequencies[label]),
                    original_box=columns.boxes[row].tolist(),
                )
            )
        sample[GROUND_TRUTH] = fo.Detections(detections=labels)
        yield sample


def image_size(columns: Annotations, image: int, path: str) -> tuple[int, int]:
    """(H, W) as the annotations say, else as the file's header does. Raises DatasetError where there is neither."""
    height, width = (int(v) for v in columns.image_sizes[image])
    if height and width:
        return height, width
    try:
        with Image.open(path) as file:
            return file.height, file.width
    except OSError as error:
        raise DatasetError(f"the image's size is not known, and it cannot be read: {error}", file=path) from None


class FiftyOneDataset(IndexedDataset):
    """What a FiftyOne view holds, as a dataset to train on and to score with.

    index, image_root: see ``IndexedDataset``. protocol: by which it is scored. sample_ids: FiftyOne's own ids of the
    images. ground_truth: folder of the three sets of WIDER FACE.
    """

    def __init__(
        self,
        *,
        index: Index,
        image_root: Path,
        protocol: str,
        sample_ids: Sequence[str],
        ground_truth: Path | None = None,
    ) -> None:
        super().__init__(index=index, image_root=image_root)
        self.protocol = protocol
        self.sample_ids = tuple(sample_ids)
        self.ground_truth = ground_truth


def from_fiftyone(view: Any, field: str = GROUND_TRUTH, *, protocol: str | None = None) -> FiftyOneDataset:
    """A FiftyOne dataset or view as a dataset: its images in the view's order, its labels as they are by now.

    Boxes, masks, ids, crowd and ignore flags come back as ``to_fiftyone`` wrote them, with what was edited, added or
    deleted since. Labels that another tool made need nothing but a class and a box. Classes that were not there before
    follow after the others. Nothing of the original files is touched.

    Args:
        view: of images with a field of detections.
        field: that field.
        protocol: ``coco``, ``lvis``, ``voc``, ``cityscapes`` or ``wider_face``; by default the one that the dataset
            came with. Cityscapes' finds void pixels in the instance maps beside the photos, and the sets of WIDER FACE
            stand in files of their own, from where they lay when the dataset came.

    Raises:
        DatasetError: where the field is missing or holds something else, or an image's size cannot be found.
    """
    fo = start()
    found = view.get_field(field)
    if getattr(found, "document_type", None) is not fo.Detections:
        has = [n for n, f in view.get_field_schema().items() if getattr(f, "document_type", None) is fo.Detections]
        raise DatasetError("not a field of detections", field=field, found=found, expected=" or ".join(has) or "one")
    info = view._dataset.info
    classes = list(info.get("classes") or view.default_classes or sorted(view.distinct(f"{field}.detections.label")))
    category_ids = list(info.get("category_ids") or range(1, len(classes) + 1))
    for new in sorted(set(view.distinct(f"{field}.detections.label")) - set(classes)):
        classes.append(new)
        category_ids.append(max(category_ids, default=0) + 1)
    label_of = {name: i for i, name in enumerate(classes)}
    wanted = ["image_id", "neg_labels", "not_exhaustive_labels"]
    present = [name for name in wanted if view.has_sample_field(name)]
    builder, files, sample_ids, extra = Builder(), [], [], {name: [] for name in present}
    fresh = _fresh_ids(view, field)
    for sample in view.select_fields([field, "metadata", *present]).iter_samples():
        size = _size_of(sample)
        image_id = sample["image_id"] if "image_id" in present else None
        image = builder.image(sample.id if image_id is None else image_id, size, sample.filepath)
        files.append(sample.filepath)
        sample_ids.append(sample.id)
        for name in present[1:]:
            extra[name].append([label_of[c] for c in sample[name] or () if c in label_of])
        for label in sample[field].detections if sample[field] is not None else ():
            _add(builder, label, image, size, label_of[label.label], fresh)
    root = os.path.commonpath([os.path.dirname(file) for file in files]) if files else "/"
    annotations = builder.finish(masks=info.get("masks") or None)
    names = [os.path.relpath(file, root) for file in files]
    annotations = replace(annotations, image_files=type(annotations.image_files).of(names))
    if "neg_labels" in present and info.get("frequencies"):
        frequencies = np.array([*info["frequencies"], *["r"] * (len(classes) - len(info["frequencies"]))])
        rows = {name: Ragged.of(extra[name]) for name in present[1:]}
        annotations = replace(annotations, frequencies=frequencies, **rows)
    sets = info.get("ground_truth")
    return FiftyOneDataset(
        index=Index(annotations, tuple(classes), tuple(category_ids)),
        image_root=Path(root),
        protocol=str(protocol or info.get("protocol", "coco")),
        sample_ids=sample_ids,
        ground_truth=None if sets is None else Path(sets),
    )


def _fresh_ids(view: Any, field: str) -> Iterator[Any]:
    """Ids for labels that were drawn in the App."""
    path = f"{field}.detections.annotation_id"
    known = [i for i in view._dataset.distinct(path) if i is not None] if view._dataset.has_field(path) else []
    numbers = iter(range(max(known, default=0) + 1, 2**62)) if all(isinstance(i, int) for i in known) else None
    return numbers if numbers is not None else (f"new-{i}" for i in range(1, 2**62))


def _size_of(sample: Any) -> tuple[int, int]:
    metadata = sample.metadata
    if metadata is not None and metadata.height and metadata.width:
        return int(metadata.height), int(metadata.width)
    try:
        with Image.open(sample.filepath) as file:
            return file.height, file.width
    except OSError as error:
        raise DatasetError(f"the image's size is not known: {error}", file=sample.filepath) from None


def _add(builder: Builder, label: Any, image: int, size: tuple[int, int], number: int, fresh: Iterator[Any]) -> None:
    """One label as an annotation; its area stands as it was while box and mask do."""
    box = box_of(label, size)
    counts = counts_of(label, box, size)
    area = label.get_attribute_value("area", None)
    original = label.get_attribute_value("original_box", None)
    if area is None or original is None or box.tolist() != list(original):
        area = float((box[2] - box[0]) * (box[3] - box[1]))
    annotation_id = label.get_attribute_value("annotation_id", None)
    builder.annotation(
        next(fresh) if annotation_id is None else annotation_id,
        image,
        box=box,
        stated=(box[0], box[1], box[2] - box[0], box[3] - box[1]),
        label=number,
        area=float(area),
        ignore=bool(label.get_attribute_value("ignore", False)),
        crowd=bool(label.get_attribute_value("iscrowd", False)),
        counts=counts,
    )
