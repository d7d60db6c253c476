"""Instance masks as polygons, run lengths or bitmaps, and a guarded way into pycocotools.

Shape letters: N masks of one image of H x W pixels.

pycocotools 2.0.11 reads outside its buffers on malformed run lengths and fills all memory on huge or NaN polygons.
Everything that goes there passes through this file, which checks it first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as _pycocotools

from .errors import DatasetError
from .sample import Masks

# Its stubs know fewer forms than it takes.
_coco: Any = _pycocotools

# The rasterizer walks along edges at five times the resolution with 32-bit counters.
MAX_SIDE = 65_535
MAX_PIXELS = 2**31 - 1


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """(H, W) as whole numbers from 1 to 65,535 whose product fits 31 bits. Raises DatasetError."""
    if isinstance(size, list | tuple | np.ndarray) and len(size) == 2:
        h, w = size
        whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in (h, w))
        if whole and 0 < h <= MAX_SIDE and 0 < w <= MAX_SIDE and h * w <= MAX_PIXELS:
            return int(h), int(w)
    raise DatasetError("not an image size", field="size", found=size, expected=f"[height, width], each 1 to {MAX_SIDE}")


def check_polygons(polygons: object, size: tuple[int, int]) -> list[list[float]]:
    """Polygons of one object, each ``[x0, y0, x1, y1, ...]`` of three points or more, near the image.

    Raises DatasetError for anything else: not numbers, not finite, an odd count, or a point farther outside the
    image than its longer side.
    """
    if not isinstance(polygons, list | tuple):
        raise DatasetError(
            "not a list of polygons", field="segmentation", found=polygons, expected="[[x0, y0, x1, y1, ...], ...]"
        )
    reach = max(size)
    checked = []
    for number, polygon in enumerate(polygons):
        name = f"segmentation[{number}]"
        if not isinstance(polygon, list | tuple | np.ndarray):
            raise DatasetError("not a polygon", field=name, found=polygon, expected="[x0, y0, x1, y1, ...]")
        try:
            points = np.asarray(polygon)
            if points.dtype.kind not in "iuf":
                raise ValueError
            points = points.astype(np.float64).reshape(-1)
        except (ValueError, TypeError, OverflowError):
            raise DatasetError("polygon is not all numbers", field=name, found=polygon) from None
        if len(points) < 6 or len(points) % 2:
            raise DatasetError(
                "polygon without three points",
                field=name,
                found=f"{len(points)} numbers",
                expected="an even count >= 6",
            )
        if not np.isfinite(points).all():
            raise DatasetError("polygon is not finite", field=name, found=points[~np.isfinite(points)][0].item())
        limit = np.array([size[1] + reach, size[0] + reach])
        xy = points.reshape(-1, 2)
        if (xy < -reach).any() or (xy > limit).any():
            raise DatasetError(
                "polygon far outside the image",
                field=name,
                found=f"x {xy[:, 0].min():g}..{xy[:, 0].max():g}, y {xy[:, 1].min():g}..{xy[:, 1].max():g}",
                expected=f"within {size[1]} x {size[0]}",
            )
        checked.append(points.tolist())
    return checked


def check_rle(rle: object, size: tuple[int, int] | None = None) -> bytes:
    """Compressed counts of one run-length mask, from compressed (text or bytes) or plain (list) counts.

    size: the (H, W) that it must have, where known. Raises DatasetError where the counts are malformed, negative or
    do not add up to H * W.
    """
    if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
        raise DatasetError(
            "not a run-length mask", field="segmentation", found=rle, expected='{"size": [H, W], "counts": ...}'
        )
    own = check_size(rle["size"])
    if size is not None and own != tuple(size):
        raise DatasetError("size differs from the image's", field="segmentation.size", found=own, expected=tuple(size))
    counts = rle["counts"]
    if isinstance(counts, str):
        try:
            counts = counts.encode("ascii")
        except UnicodeEncodeError:
            raise DatasetError("counts are not ASCII", field="segmentation.counts", found=counts) from None
    if isinstance(counts, bytes):
        lengths = _expand(counts)
        compressed = counts
    elif isinstance(counts, list | tuple | np.ndarray):
        try:
            lengths = np.asarray(counts)
            if lengths.size and lengths.dtype.kind not in "iu":
                raise ValueError
            lengths = lengths.astype(np.int64).reshape(-1)
        except (ValueError, TypeError, OverflowError):
            raise DatasetError("counts are not whole numbers", field="segmentation.counts", found=counts) from None
        compressed = None
    else:
        raise DatasetError("neither text nor a list", field="segmentation.counts", found=counts)
    if (lengths < 0).any() or (lengths > own[0] * own[1]).any() or int(lengths.sum()) != own[0] * own[1]:
        raise DatasetError(
            "counts do not cover the image",
            field="segmentation.counts",
            found=f"a sum of {int(lengths.sum())}, smallest {int(lengths.min()) if len(lengths) else 0}",
            expected=f"a sum of {own[0] * own[1]}, none negative",
        )
    if compressed is None:
        compressed = _coco.frPyObjects({"size": list(own), "counts": lengths.tolist()}, *own)["counts"]
    return compressed


def _expand(data: bytes) -> np.ndarray:
    """Run lengths of compressed counts: groups of five bits, low first, 0x20 says that more follow, 0x10 of the last
    is the sign; from the fourth on, differences to the one before last (maskApi of the COCO API)."""
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero((codes & 0x20) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    if (codes < 0).any() or (codes > 63).any() or not len(ends) or ends[-1] != len(codes) - 1:
        raise DatasetError("malformed compressed counts", field="segmentation.counts", found=data)
    sizes = ends - starts + 1
    if sizes.max() > 7:
        raise DatasetError("malformed compressed counts", field="segmentation.counts", found=data)
    place = np.arange(len(codes)) - np.repeat(starts, sizes)
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    values -= np.where(codes[ends] & 0x10, 1 << (5 * sizes), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def encode(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) bool or 0/1 integers to COCO run lengths ``{"size": [H, W], "counts": bytes}``."""
    if mask.ndim != 2:
        raise DatasetError("not a mask", found=f"shape {mask.shape}", expected="(H, W)")
    check_size(mask.shape)
    return _coco.encode(np.asfortranarray(mask.astype(np.uint8, copy=False) != 0).view(np.uint8))


def encode_polygons(polygons: Sequence[np.ndarray | Sequence[float]], size: tuple[int, int]) -> dict[str, Any]:
    """The union of polygons, each (n, 2) x, y or flat, as COCO run lengths; empty for no polygon.

    Finite points only. Parts far outside the canvas are cut off first, which changes no pixel inside.
    """
    h, w = check_size(size)
    flat = []
    for polygon in polygons:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        if (points < -max(h, w)).any() or (points > np.array([w, h]) + max(h, w)).any():
            points = _clip(points, -max(h, w), w + max(h, w), h + max(h, w))
        if len(points) >= 3:
            flat.append(points.reshape(-1).tolist())
    if not flat:
        return encode(np.zeros((h, w), np.uint8))
    return _coco.merge(_coco.frPyObjects(flat, h, w))


def decode(rle: dict[str, Any]) -> np.ndarray:
    """COCO run lengths to (H, W) uint8 of 0 and 1. Raises DatasetError where they are malformed."""
    counts = check_rle(rle)
    return _coco.decode({"size": list(rle["size"]), "counts": counts})


def area(rle: dict[str, Any]) -> int:
    """Pixels of a mask in COCO run lengths. Raises DatasetError where they are malformed."""
    return int(_coco.area({"size": list(rle["size"]), "counts": check_rle(rle)}))


def bounding_box(rle: dict[str, Any]) -> tuple[float, float, float, float]:
    """xyxy of a mask in COCO run lengths, ends exclusive; zeros where it is empty."""
    x, y, w, h = _coco.toBbox({"size": list(rle["size"]), "counts": check_rle(rle)}).tolist()
    return x, y, x + w, y + h


def _clip(points: np.ndarray, low: float, right: float, bottom: float) -> np.ndarray:
    """Sutherland-Hodgman: a polygon (n, 2) cut to low <= x <= right, low <= y <= bottom."""
    for axis, bound, sign in ((0, low, 1), (0, right, -1), (1, low, 1), (1, bottom, -1)):
        if not len(points):
            break
        inside = sign * (points[:, axis] - bound) >= 0
        cut: list[np.ndarray] = []
        for i in range(len(points)):
            before, here = points[i - 1], points[i]
            if inside[i] != inside[i - 1]:
                part = (bound - before[axis]) / (here[axis] - before[axis])
                cut.append(before + part * (here - before))
            if inside[i]:
                cut.append(here)
        points = np.array(cut).reshape(-1, 2)
    return points


def _check_direction(direction: str) -> None:
    if direction not in ("horizontal", "vertical", "diagonal"):
        raise ValueError(f"flip: expected horizontal, vertical or diagonal, found {direction!r}")


def _indices(keep: np.ndarray, count: int) -> np.ndarray:
    keep = np.asarray(keep)
    return np.arange(count)[keep] if keep.size else np.zeros(0, np.int64)


@dataclass(frozen=True)
class PolygonMasks:
    """Masks as polygons: ``polygons[i]`` holds the parts of object i, each (n, 2) x, y in pixels.

    Geometry moves the coordinates, so nothing is lost however often the image is resized. window: xyxy part of the
    image outside of which nothing is drawn, so that what a crop cut off does not come back on a larger canvas; the
    whole image where absent.
    """

    polygons: tuple[tuple[np.ndarray, ...], ...]
    size: tuple[int, int]
    window: tuple[float, float, float, float] | None = None

    def __len__(self) -> int:
        return len(self.polygons)

    def __getitem__(self, keep: np.ndarray) -> PolygonMasks:
        return replace(self, polygons=tuple(self.polygons[i] for i in _indices(keep, len(self))))

    def decode(self) -> np.ndarray:
        masks = np.zeros((len(self), *self.size), np.uint8)
        left, top, right, bottom = (math.floor(edge + 0.5) for edge in self._window())
        seen = np.s_[top:bottom, left:right]
        for mask, parts in zip(masks, self.polygons):
            if parts:
                mask[seen] = _coco.decode(encode_polygons(parts, self.size))[seen]
        return masks

    def resize(self, size: tuple[int, int]) -> PolygonMasks:
        scale = np.array([size[1] / self.size[1], size[0] / self.size[0]])
        return self._moved(scale, np.zeros(2), size)

    def flip(self, direction: str) -> PolygonMasks:
        _check_direction(direction)
        h, w = self.size
        sign = {"horizontal": (-1, 1), "vertical": (1, -1), "diagonal": (-1, -1)}[direction]
        shift = np.where(np.array(sign) < 0, np.array([w, h]), 0)
        return self._moved(np.array(sign), shift, self.size)

    def place(self, top: int, left: int, size: tuple[int, int]) -> PolygonMasks:
        return self._moved(np.ones(2), np.array([left, top]), size)

    def _moved(self, scale: np.ndarray, shift: np.ndarray, size: tuple[int, int]) -> PolygonMasks:
        moved = tuple(tuple(part * scale + shift for part in parts) for parts in self.polygons)
        h, w = int(size[0]), int(size[1])
        corners = np.sort(np.reshape(self._window(), (2, 2)) * scale + shift, axis=0).clip(0, [w, h])
        left, top, right, bottom = corners.reshape(-1).tolist()
        return PolygonMasks(moved, (h, w), (left, top, right, bottom))

    def _window(self) -> tuple[float, float, float, float]:
        return (0, 0, self.size[1], self.size[0]) if self.window is None else self.window


@dataclass(frozen=True)
class BitMasks:
    """Masks as decoded pixels, (N, H, W) uint8 of 0 and 1. Resizing takes the nearest pixel."""

    bits: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return int(self.bits.shape[1]), int(self.bits.shape[2])

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, keep: np.ndarray) -> BitMasks:
        return BitMasks(self.bits[_indices(keep, len(self))])

    def decode(self) -> np.ndarray:
        return self.bits

    def resize(self, size: tuple[int, int]) -> BitMasks:
        resized = np.zeros((len(self), *size), np.uint8)
        for source, target in zip(self.bits, resized):
            target[:] = cv2.resize(source, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        return BitMasks(resized)

    def flip(self, direction: str) -> BitMasks:
        _check_direction(direction)
        axes = {"horizontal": (2,), "vertical": (1,), "diagonal": (1, 2)}[direction]
        return BitMasks(np.flip(self.bits, axes))

    def place(self, top: int, left: int, size: tuple[int, int]) -> BitMasks:
        h, w = self.size
        canvas = np.zeros((len(self), *size), np.uint8)
        y1, y2 = max(top, 0), min(top + h, size[0])
        x1, x2 = max(left, 0), min(left + w, size[1])
        if y1 < y2 and x1 < x2:
            canvas[:, y1:y2, x1:x2] = self.bits[:, y1 - top : y2 - top, x1 - left : x2 - left]
        return BitMasks(canvas)


@dataclass(frozen=True)
class RLEMasks:
    """Masks as compressed COCO run lengths of an image of ``source_size``; geometry is written down in ``steps`` and
    done on pixels when they are asked for."""

    counts: tuple[bytes, ...]
    source_size: tuple[int, int]
    steps: tuple[tuple[Any, ...], ...] = ()
    size: tuple[int, int] = field(default=(0, 0))

    def __post_init__(self) -> None:
        if self.size == (0, 0):
            object.__setattr__(self, "size", self.source_size)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, keep: np.ndarray) -> RLEMasks:
        return replace(self, counts=tuple(self.counts[i] for i in _indices(keep, len(self))))

    def decode(self) -> np.ndarray:
        if not self.counts:
            return np.zeros((0, *self.size), np.uint8)
        size = list(self.source_size)
        masks = BitMasks(np.stack([decode({"size": size, "counts": counts}) for counts in self.counts]))
        for name, *values in self.steps:
            masks = getattr(masks, name)(*values)
        return np.ascontiguousarray(masks.bits)

    def resize(self, size: tuple[int, int]) -> RLEMasks:
        return self._then("resize", (int(size[0]), int(size[1])))

    def flip(self, direction: str) -> RLEMasks:
        _check_direction(direction)
        return replace(self, steps=(*self.steps, ("flip", direction)))

    def place(self, top: int, left: int, size: tuple[int, int]) -> RLEMasks:
        return self._then("place", int(top), int(left), (int(size[0]), int(size[1])))

    def _then(self, name: str, *values: Any) -> RLEMasks:
        return replace(self, steps=(*self.steps, (name, *values)), size=values[-1])


@dataclass(frozen=True)
class MixedMasks:
    """Masks of different kinds in one image, as COCO has them: object i is mask ``places[i][1]`` of
    ``parts[places[i][0]]``."""

    parts: tuple[Masks, ...]
    places: tuple[tuple[int, int], ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.parts[0].size

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, keep: np.ndarray) -> MixedMasks:
        return replace(self, places=tuple(self.places[i] for i in _indices(keep, len(self))))

    def decode(self) -> np.ndarray:
        masks = np.zeros((len(self), *self.size), np.uint8)
        for number, part in enumerate(self.parts):
            rows = [row for row, (owner, _) in enumerate(self.places) if owner == number]
            if rows:
                masks[rows] = part[np.array([self.places[row][1] for row in rows])].decode()
        return masks

    def resize(self, size: tuple[int, int]) -> MixedMasks:
        return replace(self, parts=tuple(part.resize(size) for part in self.parts))

    def flip(self, direction: str) -> MixedMasks:
        return replace(self, parts=tuple(part.flip(direction) for part in self.parts))

    def place(self, top: int, left: int, size: tuple[int, int]) -> MixedMasks:
        return replace(self, parts=tuple(part.place(top, left, size) for part in self.parts))


def polygon_area(polygon: np.ndarray) -> float:
    """Area of a polygon (n, 2) by the shoelace formula, in square pixels."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(abs(math.fsum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
