"""What ``sdk.predict`` gives.

Shape letters: N detections of one image of h x w pixels.
"""

from __future__ import annotations

import html
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DatasetError, SdkError
from ..evaluators.base import shown_in_notebook
from ..evaluators.collecting import encode_masks
from ..models.structures import Detections
from ..reports.drawing import draw_detections
from ..reports.page import data_address
from ..reports.pictures import save_image
from .sources import Source

WIDEST = 800
"""Pixels across that a picture has at most in a notebook."""


@dataclass(frozen=True)
class Prediction(Detections):
    """Detections of one image in its own pixels, and where they come from.

    classes: names in label order, or none where nobody said them. path: file of the image, or none. drawn: (H, W, 3)
    uint8 RGB picture with the detections, where drawing was asked for. image_id: that of the dataset; of a file its
    path below the folder that was given, without the ending; else the image's number. size: (h, w) of the image.
    category_ids: the dataset's own id of each label, or none. track_ids: (N,) int64, the number of each object in a
    film, -1 for those that are not followed, or none. source: the image that was given, as it was given: its
    pixels are read again where they are needed.
    """

    classes: tuple[str, ...] | None = None
    path: Path | None = None
    drawn: np.ndarray | None = None
    image_id: Any = None
    size: tuple[int, int] | None = None
    category_ids: tuple[int, ...] | None = None
    track_ids: Tensor | None = None
    source: Source | None = field(default=None, compare=False)

    @property
    def names(self) -> list[str]:
        """Class name of each detection; its label as text where the names are unknown."""
        labels = self.labels.tolist()
        return [str(label) if self.classes is None else self.classes[label] for label in labels]

    @property
    def image(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB, read again from where it lies.

        Raises DatasetError where its file is no longer there, SdkError where nothing says what the image is.
        """
        if self.source is None:
            raise SdkError(f"image {self.image_id}: this prediction does not say what it is of")
        return self.source.pixels()

    def draw(self, threshold: float = 0.3) -> np.ndarray:
        """(h, w, 3) uint8 RGB: the image with the detections of at least ``threshold``. Errors: as of ``image``."""
        return draw_detections(self.image, self, self.classes, threshold, self.track_ids)

    def show(self, threshold: float = 0.3) -> None:
        """Shows the image with the detections of at least ``threshold``: in a notebook below the cell, else in the
        system's viewer. Errors: as of ``image``."""
        picture = Image.fromarray(self.draw(threshold))
        if not shown_in_notebook(picture):
            picture.show()

    def save(self, path: str | Path, threshold: float = 0.3) -> Path:
        """Writes the image with the detections of at least ``threshold`` in the format that the name says.

        Raises SdkError for an unknown format and for the image's own file. Others: as of ``image``.
        """
        path = Path(path)
        if self.path is not None and path.exists() and self.path.exists() and path.samefile(self.path):
            raise SdkError(f"{path}: is the image itself; expected another file for the picture")
        save_image(path, self.draw(threshold))
        return path

    def crop(self) -> list[np.ndarray]:
        """What lies in each box, (height, width, 3) uint8 RGB, at least a pixel. Errors: as of ``image``."""
        image = self.image
        limits = np.array([image.shape[1], image.shape[0]])
        boxes = self.boxes.numpy()
        starts = np.clip(np.floor(boxes[:, :2]), 0, limits - 1).astype(int)
        ends = np.clip(np.ceil(boxes[:, 2:]), starts + 1, limits).astype(int)
        return [image[y1:y2, x1:x2].copy() for (x1, y1), (x2, y2) in zip(starts, ends)]

    def tracks(self) -> list[int | None]:
        """The number of each object in a film, none for those that are not followed; empty where nothing is."""
        return [] if self.track_ids is None else [None if i < 0 else i for i in self.track_ids.tolist()]

    def mask_runs(self) -> list[dict[str, Any]] | None:
        """Masks as run lengths in COCO's form, ``{"size": [h, w], "counts": text}``; none where there are no masks."""
        if self.masks is None:
            return None
        return [{"size": list(run["size"]), "counts": run["counts"].decode()} for run in encode_masks(self.masks)]

    def to_dict(self) -> dict[str, Any]:
        """As plain values: image id, path, height and width, and of each object its class, score and box (x1, y1, x2,
        y2 pixels), its category id and its number in a film where they are known, and its mask as of ``mask_runs``
        where there is one."""
        rows = zip(self.names, self.scores.tolist(), self.boxes.tolist())
        objects: list[dict[str, Any]] = [{"class": name, "score": score, "box": box} for name, score, box in rows]
        if self.category_ids is not None:
            for one, label in zip(objects, self.labels.tolist()):
                one["category_id"] = self.category_ids[label]
        for one, number in zip(objects, self.tracks()):
            one["track_id"] = number
        for one, run in zip(objects, self.mask_runs() or ()):
            one["mask"] = run
        height, width = self.size or (None, None)
        path = None if self.path is None else str(self.path)
        return {"image_id": self.image_id, "path": path, "height": height, "width": width, "objects": objects}

    def to_coco(self, image_id: Any = None) -> list[dict[str, Any]]:
        """Entries of a COCO results file: image id, category id, box (x, y, width, height), score, and the mask as run
        lengths where there is one. Scores of masks (Mask Scoring R-CNN) have no place in that form.

        image_id: instead of the prediction's own.

        Raises SdkError where nobody said the category ids of the labels.
        """
        if self.category_ids is None:
            raise SdkError(no_category_ids(self.classes))
        image_id = self.image_id if image_id is None else image_id
        # In double precision the corner can be computed again from the width.
        corners, ends = self.boxes.double().split(2, dim=1)
        boxes = torch.cat([corners, (ends - corners).clamp(min=0)], dim=1)
        entries = [
            {"image_id": image_id, "category_id": self.category_ids[label], "bbox": box, "score": score}
            for label, box, score in zip(self.labels.tolist(), boxes.tolist(), self.scores.tolist())
        ]
        for entry, number in zip(entries, self.tracks()):
            entry["track_id"] = number
        for entry, run in zip(entries, self.mask_runs() or ()):
            entry["segmentation"] = run
        return entries

    def to_pandas(self) -> Any:
        """One row an object; needs pandas."""
        import pandas

        rows = [[one["class"], one["score"], *one["box"]] for one in self.to_dict()["objects"]]
        table = pandas.DataFrame(rows, columns=["class", "score", "x1", "y1", "x2", "y2"])
        return table if self.track_ids is None else table.assign(track_id=self.track_ids.tolist())

    def to_torchvision(self) -> dict[str, Tensor]:
        """As torchvision's detectors give it: ``boxes`` (N, 4) xyxy, ``scores`` (N,), ``labels`` (N,) which count from
        1, because 0 is the background there, and where there are masks ``masks`` (N, 1, h, w) float, 0 or 1."""
        found = {"boxes": self.boxes, "labels": self.labels + 1, "scores": self.scores}
        return found if self.masks is None else {**found, "masks": self.masks[:, None].float()}

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, with ``class_name`` in its data. Raises ImportError without supervision."""
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise ImportError("to_supervision needs the package: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes.numpy().astype(np.float32),
            mask=None if self.masks is None else self.masks.numpy().astype(bool),
            confidence=self.scores.numpy().astype(np.float32),
            class_id=self.labels.numpy().astype(int),
            tracker_id=None if self.track_ids is None else self.track_ids.numpy().astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names).most_common(5))
        return f"Prediction({len(self.scores)} objects{': ' + counts if counts else ''})"

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{html.escape(name)}<td>{score:.3f}<td>{' '.join(f'{v:.1f}' for v in box)}"
            for name, score, box in zip(self.names, self.scores.tolist(), self.boxes.tolist())
        ]
        table = f"<table><tr><th>class<th>score<th>x1 y1 x2 y2{''.join(rows)}</table>"
        return f"{html.escape(repr(self))}{self._picture()}{table}"

    def _picture(self) -> str:
        """The picture as HTML; nothing where the image is gone."""
        with suppress(DatasetError, SdkError):
            picture = self.draw()
            ratio = min(1.0, WIDEST / max(picture.shape[:2]))
            size = [max(1, round(side * ratio)) for side in picture.shape[1::-1]]
            return f'<br><img src="{data_address(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))}">'
        return ""

    def __getitem__(self, keep: Tensor | slice) -> Prediction:
        kept = Detections(self.boxes, self.scores, self.labels, self.masks, self.mask_scores)[keep]
        track_ids = None if self.track_ids is None else self.track_ids[keep]
        return replace(self, **vars(kept), track_ids=track_ids, drawn=None)


def no_category_ids(classes: tuple[str, ...] | None) -> str:
    """What to do where a detector does not say its category ids."""
    known = "" if classes is None else f" ({', '.join(classes[:3])} ...)"
    return (
        f"nobody said the category ids of the detector's labels{known}; predict on the dataset, whose ids are then "
        "taken, or set model.category_ids in label order"
    )
