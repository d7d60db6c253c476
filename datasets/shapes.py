"""Shapes drawn on the fly: a dataset with boxes and masks that needs no file, for trials and tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .adapter import Splits, fingerprint_of
from .base import ImageInfo, own_evaluator
from .errors import DatasetError
from .index import Annotations, Builder
from .masks import BitMasks, encode
from .sample import Sample
from .writing import Writable

CLASSES = ("circle", "square", "triangle", "cross")
_SEEDS = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class _Shape:
    label: int
    color: tuple[int, int, int]
    points: np.ndarray
    """(n, 2) int32 outline, x and y in pixels."""


class Shapes(Writable):
    """Seeded drawings of circles, squares, triangles and crosses on noise, with boxes and exact masks.

    count: images of a split; the validation and test splits have a quarter of it. size: (H, W) of every image.
    max_objects: an image has 0 to this many. classes: which shapes, in label order. seed: another seed, other
    drawings. An image depends on (seed, split, index) alone. Later shapes cover earlier ones, but never more than three
    quarters of what is still visible of one; the visible part is a shape's mask.
    """

    protocol = "coco"

    def __init__(
        self,
        count: int = 200,
        *,
        size: tuple[int, int] = (128, 128),
        max_objects: int = 6,
        classes: tuple[str, ...] = CLASSES,
        split: str = "train",
        seed: int = 0,
    ) -> None:
        unknown = [name for name in classes if name not in CLASSES]
        if unknown or not classes:
            raise DatasetError("no such shape", field="classes", found=unknown or classes, expected=CLASSES)
        if split not in _SEEDS:
            raise DatasetError("no such split", field="split", found=split, expected="train, val or test")
        if count < 1 or max_objects < 0 or min(size) < 16:
            found = (count, max_objects, size)
            raise DatasetError(
                "nothing to draw", field="count, max_objects, size", found=found, expected=">= 1, >= 0, >= 16"
            )
        self.size, self.max_objects, self.classes = (int(size[0]), int(size[1])), max_objects, tuple(classes)
        self.category_ids = tuple(range(1, len(self.classes) + 1))
        self.split, self.seed = split, seed
        self._whole = count
        self._count = count if split == "train" else max(1, count // 4)
        self.splits = Splits(tuple(sorted(_SEEDS, key=lambda name: name != split)), self._open, first=self)

    def _open(self, split: str) -> Shapes:
        return Shapes(
            self._whole, size=self.size, max_objects=self.max_objects, classes=self.classes, split=split, seed=self.seed
        )

    @property
    def train(self) -> Shapes:
        """The training split."""
        return self.splits["train"]

    @property
    def val(self) -> Shapes:
        """The validation split."""
        return self.splits["val"]

    @property
    def test(self) -> Shapes:
        """The test split."""
        return self.splits["test"]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        image, masks, labels = self._draw(index)
        return Sample(
            image=image,
            boxes=np.array([_extent(mask) for mask in masks], np.float32).reshape(-1, 4),
            labels=labels,
            ignore=np.zeros(len(labels), bool),
            image_id=index % len(self),
            masks=BitMasks(masks),
        )

    def info(self, index: int) -> ImageInfo:
        rows = self.annotations.rows(index % len(self))
        return ImageInfo(index % len(self), self.size, self.annotations.labels[rows])

    @cached_property
    def annotations(self) -> Annotations:
        """The ground truth as columns."""
        builder = Builder()
        for index in range(len(self)):
            _, masks, labels = self._draw(index)
            builder.image(index, self.size, f"{index:06d}.png")
            for mask, label in zip(masks, labels):
                x1, y1, x2, y2 = _extent(mask)
                builder.annotation(
                    len(builder) + 1,
                    index,
                    box=(x1, y1, x2, y2),
                    stated=(x1, y1, x2 - x1, y2 - y1),
                    label=int(label),
                    area=float(mask.sum()),
                    counts=encode(mask)["counts"],
                )
        return builder.finish(masks=True)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the annotations say."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        return fingerprint_of(self.annotations, self.classes)

    def evaluator(self) -> Any:
        """COCO protocol for boxes and masks."""
        return own_evaluator(self)

    def write_coco(self, folder: str | Path) -> Path:
        """Write all splits as a COCO folder: ``annotations/instances_<split>.json`` and ``<split>/*.png``."""
        folder = Path(folder)
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        for name, dataset in self.splits.items():
            dataset._write_split(folder, name)
        return folder

    def _write_split(self, folder: Path, name: str) -> None:
        (folder / name).mkdir(exist_ok=True)
        columns = self.annotations
        images, annotations = [], []
        for index in range(len(self)):
            file = columns.image_files[index]
            image, _, _ = self._draw(index)
            cv2.imwrite(str(folder / name / file), image[:, :, ::-1])
            images.append({"id": index, "file_name": file, "height": self.size[0], "width": self.size[1]})
        owners = columns.image_of()
        for row in range(len(columns)):
            mask = columns.segmentation(row)
            annotations.append(
                {
                    "id": int(columns.annotation_ids[row]),
                    "image_id": int(owners[row]),
                    "category_id": self.category_ids[columns.labels[row]],
                    "bbox": columns.stated_boxes[row].tolist(),
                    "area": float(columns.areas[row]),
                    "iscrowd": 0,
                    "segmentation": {"size": mask["size"], "counts": mask["counts"].decode("ascii")},
                }
            )
        categories = [{"id": i, "name": label} for i, label in zip(self.category_ids, self.classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content), encoding="utf-8")

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(image (H, W, 3) uint8, visible masks (N, H, W) uint8, labels (N,) int64)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        sequence = np.random.SeedSequence([self.seed, _SEEDS[self.split], index % len(self)])
        rng = np.random.Generator(np.random.Philox(sequence))
        h, w = self.size
        image = np.clip(rng.normal(rng.uniform(40, 120, 3), 12, (h, w, 3)), 0, 255).astype(np.uint8)
        shapes = [self._shape(rng) for _ in range(rng.integers(0, self.max_objects + 1))]
        owner = np.full((h, w), -1)
        drawn: list[_Shape] = []
        for shape in shapes:
            mask = np.zeros((h, w), np.uint8)
            cv2.fillPoly(mask, [shape.points], 1)
            before, after = np.bincount(owner[owner >= 0], minlength=len(drawn)), owner.copy()
            after[mask == 1] = len(drawn)
            left = np.bincount(after[after >= 0], minlength=len(drawn) + 1)[: len(drawn)]
            if mask.any() and not (left * 4 < before).any():
                owner = after
                drawn.append(shape)
        for number, shape in enumerate(drawn):
            image[owner == number] = shape.color
        masks = np.stack([owner == number for number in range(len(drawn))]) if drawn else np.zeros((0, h, w))
        return image, masks.astype(np.uint8), np.array([shape.label for shape in drawn], np.int64)

    def _shape(self, rng: np.random.Generator) -> _Shape:
        h, w = self.size
        label = int(rng.integers(len(self.classes)))
        radius = rng.uniform(0.08, 0.22) * min(h, w)
        center = rng.uniform((radius, radius), (w - radius, h - radius))
        turn = rng.uniform(0, 2 * np.pi)
        outline = _outline(self.classes[label]) @ np.array(
            [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
        )
        red, green, blue = rng.integers(100, 256, 3).tolist()
        return _Shape(label, (red, green, blue), np.round(center + radius * outline).astype(np.int32))


def _outline(name: str) -> np.ndarray:
    """(n, 2) outline of a shape of radius one around the origin."""
    if name == "cross":
        arm = np.array([[0.3, 1], [0.3, 0.3], [1, 0.3]])
        turns = [np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), k) for k in range(4)]
        return np.concatenate([arm @ turn for turn in turns]) * 0.95
    corners = {"circle": 48, "square": 4, "triangle": 3}[name]
    angles = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    """xyxy of a mask that is not empty, ends exclusive."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)
