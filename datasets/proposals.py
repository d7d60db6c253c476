"""Boxes given from outside (Fast R-CNN): files in the forms in which they are published.

Shape letters: I images, P proposals of one image.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from .array_pickles import load_arrays
from .errors import DatasetError
from .index import Ragged
from .reading import read_bytes


def read_proposals(file: Path, image_ids: np.ndarray) -> Ragged:
    """The proposals of every image as rows x1, y1, x2, y2, score, highest score first as in the file.

    Forms: ``.pkl``, ``.npy``, ``.npz`` or ``.json`` with one (P, 4) or (P, 5) array an image in the order of the
    images; a mapping of ``ids``, ``boxes`` and ``scores``; or ``.json`` as COCO results (``image_id``, ``bbox`` xywh,
    ``score``). Pickles may hold nothing but numpy arrays, lists and dictionaries.
    Raises DatasetError for another form, another number of images, or boxes that are not finite.
    """
    content = _load(file)
    if isinstance(content, dict) and {"ids", "boxes"} <= content.keys():
        content = _by_id(file, content, image_ids)
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        content = _results(file, content, image_ids)
    if not isinstance(content, list | tuple | np.ndarray) or len(content) != len(image_ids):
        found = len(content) if hasattr(content, "__len__") else type(content).__name__
        raise DatasetError("not one list of boxes an image", file=file, found=found, expected=f"{len(image_ids)} lists")
    rows = [_boxes(file, image_id, boxes) for image_id, boxes in zip(image_ids.tolist(), content)]
    offsets = np.cumsum([0] + [len(row) for row in rows])
    return Ragged(np.concatenate([*rows, np.zeros((0, 5), np.float32)]), offsets)


def _load(file: Path) -> Any:
    data = read_bytes(file)
    try:
        if file.suffix == ".json":
            return json.loads(data)
        if file.suffix in (".npy", ".npz"):
            loaded = np.load(io.BytesIO(data), allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            members = {name: loaded[name] for name in loaded.files}
            if {"ids", "boxes"} <= members.keys():
                return members
            return [members[name] for name in sorted(members, key=lambda name: int(name.removeprefix("arr_")))]
        if file.suffix in (".pkl", ".pickle"):
            return load_arrays(data)
    except Exception as error:
        # Damaged pickles raise nearly anything; whichever it is, the file is at fault.
        raise DatasetError(f"proposals cannot be read: {error}", file=file) from error
    raise DatasetError("unknown kind of proposals file", file=file, expected=".pkl, .npy, .npz or .json")


def _boxes(file: Path, image_id: Any, boxes: Any) -> np.ndarray:
    try:
        array = np.asarray(boxes, np.float32)
        array = array.reshape(-1, array.shape[-1]) if array.size else np.zeros((0, 5), np.float32)
    except (ValueError, TypeError):
        raise DatasetError("proposals are not numbers", file=file, where=f"image {image_id}", found=boxes) from None
    if array.shape[1] == 4:
        array = np.concatenate([array, np.ones((len(array), 1), np.float32)], 1)
    if array.shape[1] != 5 or not np.isfinite(array).all():
        found = array.shape if array.shape[1] != 5 else "numbers that are not finite"
        raise DatasetError(
            "not proposals", file=file, where=f"image {image_id}", found=found, expected="(P, 4) or (P, 5), finite"
        )
    return array


def _by_id(file: Path, content: dict[str, Any], image_ids: np.ndarray) -> list[np.ndarray]:
    places = {str(image_id): place for place, image_id in enumerate(np.asarray(content["ids"]).tolist())}
    scores = content.get("scores")
    rows = []
    for image_id in image_ids.tolist():
        place = places.get(str(image_id))
        if place is None:
            raise DatasetError("no proposals for an image", file=file, where=f"image {image_id}", field="ids")
        boxes = np.asarray(content["boxes"][place], np.float32).reshape(-1, 4)
        if scores is not None:
            boxes = np.concatenate([boxes, np.asarray(scores[place], np.float32).reshape(-1, 1)], 1)
        rows.append(boxes)
    return rows


def _results(file: Path, content: list[Any], image_ids: np.ndarray) -> list[list[list[float]]]:
    rows: dict[Any, list[list[float]]] = {image_id: [] for image_id in image_ids.tolist()}
    for place, entry in enumerate(content):
        try:
            x, y, w, h = entry["bbox"]
            row = rows.get(entry["image_id"])
            score = entry.get("score", 1.0)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DatasetError("not a proposal", file=file, where=f"entry {place}", found=entry) from None
        if row is not None:
            row.append([x, y, x + w, y + h, score])
    for row in rows.values():
        row.sort(key=lambda r: -r[4])
    return list(rows.values())
