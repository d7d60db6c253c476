"""Choosing between transforms."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Transform


@dataclass(frozen=True)
class OneOf:
    """Applies one of several sequences of transforms, each equally likely."""

    policies: tuple[tuple[Transform, ...], ...]
