"""Datasets written out again: COCO files, lists of what was changed, lists of what to leave out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.index import NO_SEGMENT, columns_of
from ..datasets.writing import coco_content
from ..errors import SdkError
from ..results.files import write_json
from .converting import GROUND_TRUTH, from_fiftyone, image_paths, image_size


def as_coco(dataset: DetectionDataset) -> dict[str, Any]:
    """A dataset in the form of a COCO instances file, with every annotation that it states.

    ``file_name`` is the absolute path of the image.
    """
    columns, paths = columns_of(dataset), image_paths(dataset)
    return coco_content(dataset, paths, [image_size(columns, i, path) for i, path in enumerate(paths)])


def differences(before: DetectionDataset, after: DetectionDataset) -> list[dict[str, Any]]:
    """What was done to the annotations of the images that both have, one entry a change.

    Each entry has ``image_id``, ``annotation_id``, ``change`` (added, removed, relabelled, moved, mask) and, where it
    has them, ``before`` and ``after``.
    """
    old, new = columns_of(before), columns_of(after)
    old_of, new_of = (dict(zip(c.annotation_ids.tolist(), range(len(c)))) for c in (old, new))
    old_images, new_images = old.image_ids[old.image_of()].tolist(), new.image_ids[new.image_of()].tolist()
    looked_at = set(new.image_ids.tolist())
    changes: list[dict[str, Any]] = []

    def say(image_id: Any, annotation_id: Any, change: str, **values: Any) -> None:
        changes.append({"image_id": image_id, "annotation_id": annotation_id, "change": change, **values})

    for annotation_id, row in old_of.items():
        if old_images[row] in looked_at and annotation_id not in new_of:
            say(old_images[row], annotation_id, "removed", before=before.classes[old.labels[row]])
    for annotation_id, row in new_of.items():
        image_id = new_images[row]
        if annotation_id not in old_of:
            say(image_id, annotation_id, "added", after=after.classes[new.labels[row]])
            continue
        was = old_of[annotation_id]
        names = str(before.classes[old.labels[was]]), str(after.classes[new.labels[row]])
        if names[0] != names[1]:
            say(image_id, annotation_id, "relabelled", before=names[0], after=names[1])
        if np.abs(old.boxes[was] - new.boxes[row]).max() > 1e-4:
            say(image_id, annotation_id, "moved", before=old.boxes[was].tolist(), after=new.boxes[row].tolist())
        elif old.segments is not None and new.segments is not None:
            masked = old.segments.kind(was) != NO_SEGMENT
            if masked != (new.segments.kind(row) != NO_SEGMENT) or (
                masked and old.segmentation(was)["counts"] != new.segmentation(row)["counts"]
            ):
                say(image_id, annotation_id, "mask")
    return changes


def export_coco(
    view: Any, path: str | os.PathLike, *, original: DetectionDataset | None = None, field: str = GROUND_TRUTH
) -> list[dict[str, Any]]:
    """Writes a FiftyOne view as a COCO file; with ``original`` also what changed, as ``<name>.changes.json``.

    Returns:
        The differences from ``original``; none without it.

    Raises:
        SdkError: when the file exists: nothing of the user's is overwritten.
    """
    target = Path(path)
    changes_file = target.with_suffix(".changes.json")
    _require_new(target, *([changes_file] if original is not None else []))
    dataset = from_fiftyone(view, field)
    write_json(target, as_coco(dataset))
    if original is None:
        return []
    changes = differences(original, dataset)
    write_json(changes_file, changes)
    return changes


def export_ignore(view: Any, path: str | os.PathLike, tags: Sequence[str] = ("ignore",)) -> dict[str, list]:
    """Writes which images and annotations carry one of the tags: ``{"images": [...], "annotations": [...]}`` of ids.

    ``datasets.ignoring(dataset, path)`` is the dataset without these images, with these objects ignored.

    Raises:
        SdkError: when the file exists.
    """
    _require_new(Path(path))
    tagged = view.select_labels(tags=list(tags), fields=GROUND_TRUTH)
    found = {
        "images": view.match_tags(list(tags)).values("image_id"),
        "annotations": tagged.values(f"{GROUND_TRUTH}.detections.annotation_id", unwind=True),
    }
    # What was drawn in the App has no id, and is not in the files that the list is for.
    ids = {name: [i for i in values if i is not None] for name, values in found.items()}
    write_json(Path(path), ids)
    return ids


def _require_new(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise SdkError(f"{path}: exists; give the name of a new file")
