"""Detectors: structures, parts, methods, and the zoo of published rows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .creation import create
    from .mmdetection.checkpoint import from_mmdetection
    from .recipe import Recipe
    from .structures import Detections, ImageBatch, Proposals, Targets
    from .tta import TTA
    from .zoo import find_recipe, recipes

__all__ = [
    "TTA",
    "Detections",
    "ImageBatch",
    "Proposals",
    "Recipe",
    "Targets",
    "create",
    "find_recipe",
    "from_mmdetection",
    "is_name",
    "names",
    "recipes",
]

_HOMES = {
    "create": ".creation",
    "Recipe": ".recipe",
    "Detections": ".structures",
    "ImageBatch": ".structures",
    "Proposals": ".structures",
    "Targets": ".structures",
    "TTA": ".tta",
    "find_recipe": ".zoo",
    "from_mmdetection": ".mmdetection.checkpoint",
    "recipes": ".zoo",
}


def is_name(name: str) -> bool:
    """Whether ``create`` knows the name: of a row, or of a row on another backbone (``ROW+timm/EXTRACTOR``)."""
    return name.partition("+timm/")[0] in names()


def names() -> list[str]:
    """Names of all recipes, in alphabetical order."""
    from .zoo import recipes

    return list(recipes())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
