"""Bridge to albumentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from albumentations import Compose


@dataclass(frozen=True)
class Albumentations:
    """Applies an ``albumentations.Compose`` to image, boxes, masks and semantic map."""

    compose: Compose

    @classmethod
    def published(cls) -> Albumentations:
        """The colour and shift policy of the published Mask R-CNN with albumentations."""
