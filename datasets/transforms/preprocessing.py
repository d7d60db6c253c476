"""From an image to the numbers that a network expects.

Shape letters: H x W pixels of an image as it comes in, h x w after resizing, P x Q with padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def fitted_size(size: tuple[int, int], bounds: tuple[float, float]) -> tuple[int, int]:
    """(H, W) scaled by one factor, the largest with long edge <= max(bounds) and short edge <= min(bounds).

    Rounds halves up, as the published models were trained; no edge becomes zero.
    """
    h, w = size
    factor = min(max(bounds) / max(h, w), min(bounds) / min(h, w))
    return max(int(h * factor + 0.5), 1), max(int(w * factor + 0.5), 1)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 to (h, w, 3) by OpenCV's bilinear interpolation, without antialiasing."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Preprocessing:
    """Test-time size and normalization of a recipe.

    size: (long, short) edge bounds in either order where ``keep_ratio``, else (width, height) exactly; none leaves
    images as they are.
    mean, std: per channel in ``channels`` order (``rgb`` or ``bgr``), on values 0..255.
    divisor: the padded height and width are multiples of it.
    centered: CornerNet's padding. Height and width become multiples of ``divisor`` less one, and the image lies in the
    middle instead of the upper left corner.

    A point (x, y) of the image as it came in lies in the padded pixels at ``x * scale_x + left``, ``y * scale_y + top``
    with the scale that ``resize`` returns and ``top, left = offset(...)``, which is (0, 0) unless ``centered``.
    Detections come back by ``(x - left) / scale_x`` and ``(y - top) / scale_y``.
    """

    size: tuple[int, int] | None = (1333, 800)
    keep_ratio: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channels: str = "rgb"
    divisor: int = 32
    centered: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"Preprocessing.size: expected two positive edges or none, found {self.size!r}")
        if self.channels not in ("rgb", "bgr"):
            raise ValueError(f"Preprocessing.channels: expected 'rgb' or 'bgr', found {self.channels!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"Preprocessing: expected three means and three positive deviations, found {self.mean!r}, {self.std!r}"
            )
        if self.divisor < 1:
            raise ValueError(f"Preprocessing.divisor: expected 1 or more, found {self.divisor!r}")

    def resized_size(self, size: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
        """(h, w) of an image of (H, W); ``scale`` multiplies ``self.size``, or the image's own size without one."""
        if self.size is None:
            return fitted_size(size, (size[0] * scale, size[1] * scale))
        bounds = self.size[0] * scale, self.size[1] * scale
        return fitted_size(size, bounds) if self.keep_ratio else fitted_size((self.size[1], self.size[0]), bounds)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(h, w) of every image where all become one size; none where it depends on the image."""
        return None if self.size is None or self.keep_ratio else self.resized_size((1, 1))

    def resize(self, image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        """(H, W, 3) uint8 to (h, w, 3) uint8 and the (x, y) factors w / W, h / H."""
        _check_image(image)
        (height, width), (h, w) = image.shape[:2], self.resized_size(image.shape[:2])
        return resize_image(image, (h, w)), (w / width, h / height)

    def normalize(self, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(h, w, 3) uint8 RGB to (3, h, w) float32 in ``channels`` order: mean taken off, divided by the deviation.

        out: where to write, (3, h, w) float32 such as a part of a padded batch; the rows must lie without gaps.
        """
        _check_image(image)
        h, w = image.shape[:2]
        if out is None:
            out = np.empty((3, h, w), np.float32)
        elif out.shape != (3, h, w) or out.dtype != np.float32:
            raise ValueError(f"normalize: expected out (3, {h}, {w}) float32, found {out.shape} {out.dtype}")
        plane = np.empty((h, w), np.uint8)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std)):
            cv2.extractChannel(image, channel if self.channels == "rgb" else 2 - channel, plane)
            # One pass over the pixels: plane / std + 0 * plane - mean / std.
            cv2.addWeighted(plane, 1 / std, plane, 0, -mean / std, dst=out[channel], dtype=cv2.CV_32F)
        return out

    def denormalized(self, pixels: np.ndarray) -> np.ndarray:
        """The way back: (3, h, w) float32 as of ``normalize`` to (h, w, 3) uint8 RGB; padding gets the mean colour."""
        values = pixels.transpose(1, 2, 0) * np.array(self.std, np.float32) + np.array(self.mean, np.float32)
        image = np.rint(values).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(image if self.channels == "rgb" else image[..., ::-1])

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(P, Q) of a resized image of (h, w). A batch takes the largest of each."""
        less = 1 if self.centered else 0
        h, w = (-(-(edge + less) // self.divisor) * self.divisor - less for edge in size)
        return h, w

    def offset(self, size: tuple[int, int]) -> tuple[int, int]:
        """(top, left) at which a resized image of (h, w) lies in its padding."""
        if not self.centered:
            return 0, 0
        padded = self.padded_size(size)
        return padded[0] // 2 - size[0] // 2, padded[1] // 2 - size[1] // 2

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB, already resized, to (3, P, Q) float32: normalized, zero where padded."""
        h, w = image.shape[:2]
        top, left = self.offset((h, w))
        padded = np.zeros((3, *self.padded_size((h, w))), np.float32)
        self.normalize(image, padded[:, top : top + h, left : left + w])
        return padded


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"expected an image (H, W, 3) of uint8, found {image.shape} of {image.dtype}")
