"""Transforms that move pixels and annotations together: resizing, mirroring, shifting and padding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resize:
    """Resizes to one of several sizes.

    sizes: (long, short) edge bounds in any order where ``keep_ratio``, else (width, height) exactly.
    draw: ``value`` takes one of ``sizes``; ``range`` draws the long and the short edge uniformly between two of them.
    """

    sizes: tuple[tuple[int, int], ...] = ((1333, 800),)
    keep_ratio: bool = True
    draw: str = "value"


@dataclass(frozen=True)
class ScaleJitter:
    """Resizes to ``size`` times a factor drawn uniformly from ``ratio_range``; ``size`` as in ``Resize``."""

    size: tuple[int, int]
    ratio_range: tuple[float, float]
    keep_ratio: bool = True


@dataclass(frozen=True)
class Flip:
    """Mirrors ``horizontal``, ``vertical`` or ``diagonal`` (both)."""

    probability: float = 0.5
    direction: str = "horizontal"


@dataclass(frozen=True)
class Shift:
    """Moves the image by up to ``max_pixels`` in each direction; boxes not larger than ``min_size`` are dropped."""

    probability: float = 0.5
    max_pixels: int = 32
    min_size: float = 1


@dataclass(frozen=True)
class Expand:
    """Places the image on a larger canvas of colour ``fill`` (RGB), ``ratio_range`` times as large."""

    ratio_range: tuple[float, float] = (1, 4)
    probability: float = 0.5
    fill: tuple[float, float, float] = (123.675, 116.28, 103.53)


@dataclass(frozen=True)
class PadTo:
    """Pads on the right and bottom to at least ``size`` (width, height)."""

    size: tuple[int, int]
    fill: tuple[float, float, float] = (123.675, 116.28, 103.53)


@dataclass(frozen=True)
class PadToMultiple:
    """Pads on the right and bottom to multiples of ``divisor``."""

    divisor: int = 32
    fill: tuple[float, float, float] = (0, 0, 0)
