"""Transforms that leave the image alone and change its annotations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DropSmallBoxes:
    """Drops objects whose box is not wider and higher than ``min_size`` (width, height) pixels."""

    min_size: tuple[float, float] = (4.0, 4.0)


@dataclass(frozen=True)
class BoxesFromMasks:
    """Replaces each box by the tight one around its mask."""


@dataclass(frozen=True)
class TopProposals:
    """Keeps the first ``count`` proposals."""

    count: int = 2000
