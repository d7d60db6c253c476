"""Transforms that change colours only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhotometricDistortion:
    """SSD's colour distortion: brightness, contrast, saturation, hue and channel order, each half of the time."""

    brightness: float = 32
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18
