"""From an image to the numbers that a network expects.

Shape letters: H x W pixels of the image as read, h x w after resizing.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Preprocessing:
    """Test-time size and normalization of a recipe.

    size: (long, short) edge bounds where ``keep_ratio``, else (width, height) exactly; none leaves images as they are.
    mean, std: per channel in ``channels`` order (``rgb`` or ``bgr``), on values 0..255.
    divisor: the padded height and width are multiples of it.
    centered: CornerNet's padding. Height and width become multiples of ``divisor`` less one, and the image lies in the
    middle instead of the upper left corner; ``offset`` says where.
    """

    size: tuple[int, int] | None = (1333, 800)
    keep_ratio: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channels: str = "rgb"
    divisor: int = 32
    centered: bool = False
