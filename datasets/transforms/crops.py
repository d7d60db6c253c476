"""Transforms that cut a part out of the image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RandomCrop:
    """Crops at a random place.

    kind: ``absolute`` crops to ``size`` (width, height); ``absolute_range`` draws width and height from
    ``size[0]``..``size[1]``. allow_empty: whether a crop without objects is accepted.
    """

    size: tuple[int, int]
    kind: str = "absolute"
    allow_empty: bool = False


@dataclass(frozen=True)
class MinIoUCrop:
    """SSD's crop: every object overlaps the crop by at least an IoU drawn from ``ious``."""

    ious: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    min_size: float = 0.3


@dataclass(frozen=True)
class CenterCropPad:
    """CornerNet's crop: a window of ``size`` (width, height) times one of ``ratios`` around a random center."""

    size: tuple[int, int] = (511, 511)
    ratios: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    border: int = 128
    fill: tuple[float, float, float] = (123.675, 116.28, 103.53)
