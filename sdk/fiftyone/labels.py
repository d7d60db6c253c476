"""Objects as FiftyOne labels and back.

FiftyOne gives a box as x, y, width and height relative to the image, and a mask as the pixels inside that box. Boxes
here are xyxy pixels, masks cover the image.

Shape letters: H x W pixels of the image, h x w pixels of the part of it that a box touches.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from ..datasets import masks as mask_codec

# Relative coordinates come back with an error of some 1e-13 pixels, which must not move a corner to the next pixel.
_SLACK = 1e-6


def window(box: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels of an (H, W) image that an xyxy box touches, one at least."""
    height, width = size
    x1, y1, x2, y2 = box.tolist()
    left = min(max(math.floor(x1 + _SLACK), 0), width - 1)
    top = min(max(math.floor(y1 + _SLACK), 0), height - 1)
    right = min(max(math.ceil(x2 - _SLACK), left + 1), width)
    bottom = min(max(math.ceil(y2 - _SLACK), top + 1), height)
    return slice(top, bottom), slice(left, right)


def to_label(fo: Any, name: str, box: np.ndarray, size: tuple[int, int], counts: bytes | None = None, **extra) -> Any:
    """An object as a FiftyOne detection.

    box: xyxy pixels, float64. counts: its mask as compressed COCO run lengths of the (H, W) image. extra: attributes of
    the label. A mask that reaches out of its box, which FiftyOne cannot show, is kept whole as ``segmentation``.
    """
    height, width = size
    x1, y1, x2, y2 = box.tolist()
    relative = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
    # What is not known is left out, so that the App shows no empty lines.
    label = fo.Detection(
        label=name, bounding_box=relative, **{key: value for key, value in extra.items() if value is not None}
    )
    if counts is not None:
        mask = mask_codec.decode({"size": list(size), "counts": counts}).astype(bool)
        part = mask[window(box, size)]
        label.mask = np.ascontiguousarray(part)
        if part.sum() < mask.sum():
            label["segmentation"] = counts.decode()
    return label


def box_of(label: Any, size: tuple[int, int]) -> np.ndarray:
    """(4,) float64 xyxy pixels of a FiftyOne detection in an (H, W) image.

    Exactly the numbers that it was made from, unless the box was moved since.
    """
    x, y, w, h = label.bounding_box
    height, width = size
    box = np.array([x * width, y * height, (x + w) * width, (y + h) * height], np.float64)
    original = label.get_attribute_value("original_box", None)
    if original is not None and np.abs(box - original).max() < 1e-6 * max(size):
        return np.asarray(original, np.float64)
    return box


def counts_of(label: Any, box: np.ndarray, size: tuple[int, int]) -> bytes | None:
    """The mask of a FiftyOne detection as compressed COCO run lengths of the (H, W) image; none where it has none."""
    if not label.has_mask:
        return None
    part = np.asarray(label.get_mask()) > 0
    place = window(box, size)
    whole = label.get_attribute_value("segmentation", None)
    if whole is not None:
        mask = mask_codec.decode({"size": list(size), "counts": whole.encode()}).astype(bool)
        if mask[place].shape == part.shape and (mask[place] == part).all():
            return whole.encode()
    mask = np.zeros(size, np.uint8)
    height, width = mask[place].shape
    if part.shape != (height, width):
        # The box was moved or the label made elsewhere: the mask is stretched over the box, as the App shows it.
        part = cv2.resize(part.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    mask[place] = part
    return mask_codec.encode(mask)["counts"]
