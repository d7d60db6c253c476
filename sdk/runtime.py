"""Exported detectors with numpy and onnxruntime alone: this file runs by itself, copied beside the model too.

Shape letters: H x W pixels of an image, B images of a batch, N detections of an image, S edge of a mask as it is given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

METADATA = "sdk.json"
"""Name under which a file carries what it says of itself, as JSON."""


@dataclass(frozen=True)
class Found:
    """Detections of one image, best first.

    boxes: (N, 4) float32 xyxy in the image's pixels. scores: (N,) float32. labels: (N,) int64. names: class names.
    box_masks: (N, S, S) float32 probabilities inside of each box, or none; ``masks`` makes full masks of them.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    size: tuple[int, int]
    box_masks: np.ndarray | None = None
    mask_threshold: float = 0.5

    def __len__(self) -> int:
        return len(self.boxes)

    def masks(self) -> np.ndarray:
        """(N, H, W) bool: the probabilities resampled to their boxes, bilinearly at pixel centres."""
        if self.box_masks is None:
            raise ValueError("this model has no masks")
        return np.stack([self._pasted(index) for index in range(len(self))]) if len(self) else self._nothing()

    def _nothing(self) -> np.ndarray:
        return np.zeros((0, *self.size), bool)

    def _pasted(self, index: int) -> np.ndarray:
        values = self.box_masks[index]  # type: ignore[index]
        edge = values.shape[0]
        framed = np.pad(values, 1)
        x1, y1, x2, y2 = self.boxes[index].astype(np.float64)
        axes = []
        for start, end, count in ((y1, y2, self.size[0]), (x1, x2, self.size[1])):
            place = (np.arange(count) + 0.5 - start) / max(end - start, 1e-9) * edge - 0.5
            # What lies further outside than half a cell takes the zeros around the mask.
            place = np.clip(place, -1, edge) + 1
            lower = np.clip(np.floor(place).astype(int), 0, edge)
            axes.append((lower, place - lower))
        (row, below), (column, right) = axes
        above = framed[row] * (1 - below)[:, None] + framed[row + 1] * below[:, None]
        whole = above[:, column] * (1 - right) + above[:, column + 1] * right
        return whole >= self.mask_threshold


class Model:
    """A file that ``sdk.export`` wrote, with preprocessing inside.

    classes: names in label order. about: all that the file says of itself.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None) -> None:
        """threads: cores that one call may use; all where absent.

        Raises:
            ValueError: when the file is missing, broken, or not one that ``sdk.export`` wrote for whole images.
        """
        import onnxruntime

        if not os.path.isfile(path):
            raise ValueError(f"{path}: no such file")
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self.session: Any = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # ONNX Runtime has a class of its own for every fault of a file.
            raise ValueError(f"{path}: not a readable ONNX file: {error}") from error
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        if not text:
            raise ValueError(f"{path}: does not say what it is; give a file that sdk.export wrote")
        self.about: dict[str, Any] = json.loads(text)
        if self.about["preprocess"] != "inside":
            raise ValueError(f"{path}: takes prepared pixels, not images; export it with preprocess='inside'")
        names = self.about["classes"] or [str(label) for label in range(self.about["num_classes"])]
        self.classes: tuple[str, ...] = tuple(names)

    def __call__(self, image: np.ndarray, score_threshold: float = 0.0) -> Found:
        """Detections in an (H, W, 3) uint8 RGB image of at least ``score_threshold``."""
        return self.batch([image], score_threshold)[0]

    def batch(self, images: Sequence[np.ndarray], score_threshold: float = 0.0) -> list[Found]:
        """Detections in (H, W, 3) uint8 RGB images of one size.

        Raises ValueError for images of several sizes or another form.
        """
        for index, image in enumerate(images):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"image {index}: expected (H, W, 3) uint8, found {image.shape} {image.dtype}")
            if image.shape != images[0].shape:
                raise ValueError(f"image {index}: expected {images[0].shape} as the first, found {image.shape}")
        if not len(images):
            return []
        pixels = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
        names = [one.name for one in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(None, {"images": pixels}), strict=True))
        return [self._found(found, index, images[index].shape[:2], score_threshold) for index in range(len(images))]

    def _found(self, found: dict[str, np.ndarray], index: int, size: Any, threshold: float) -> Found:
        # Best first, so that those of at least the threshold come first.
        count = int((found["scores"][index, : found["count"][index]] >= threshold).sum())
        labels = found["labels"][index, :count]
        masks = found.get("masks")
        return Found(
            found["boxes"][index, :count],
            found["scores"][index, :count],
            labels,
            tuple(self.classes[label] for label in labels),
            (int(size[0]), int(size[1])),
            None if masks is None else masks[index, :count],
            self.about["test"].get("mask_threshold", 0.5),
        )


def load(path: str | os.PathLike, threads: int | None = None) -> Model:
    """The model in an ONNX file that ``sdk.export`` wrote; arguments and errors as of ``Model``."""
    return Model(path, threads)
