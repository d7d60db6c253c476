"""What the builder of a recipe is made of, read without building anything."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..recipe import Recipe


def innermost(build: Any) -> Any:
    """What a chain of partial functions calls in the end."""
    while isinstance(build, partial):
        build = build.func
    return build


def own_backbone(recipe: Recipe) -> Any:
    """What builds the row's backbone, or none."""
    build: Any = recipe.build
    while isinstance(build, partial):
        if "backbone" in build.keywords:
            return build.keywords["backbone"]
        build = build.func
    return None
