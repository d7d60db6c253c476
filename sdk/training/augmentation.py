"""The size of the images and how they are varied, where a user wants another than the recipe's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..datasets.transforms import (
    CenterCropPad,
    Expand,
    Flip,
    MinIoUCrop,
    Mosaic,
    OneOf,
    PadTo,
    PhotometricDistortion,
    Preprocessing,
    RandomCrop,
    Resize,
    ScaleJitter,
    Transform,
)
from ..models.recipe import Recipe
from .options import TRANSFORMS


def with_images(recipe: Recipe, image_size: int | Sequence[int] | None, transforms: Any) -> Recipe:
    """The recipe with images of this size, in training and in use, and with these transforms in training.

    image_size: the longest edge, or (long, short) bounds; where the recipe gives up the aspect ratio, the edge of a
    square or (width, height). Every size in the recipe's transforms is scaled by as much as that of its images.
    transforms: a list, or one of ``recipe``, ``none`` (the size alone), ``light`` (and flips) and ``strong`` (and
    colours, a larger canvas and crops, as SSD's; https://arxiv.org/abs/1512.02325, section 2.2).

    Raises ValueError where the recipe has no size of its own that another could take the place of.
    """
    if image_size is not None:
        recipe = _resized_recipe(recipe, image_size)
    if transforms == "recipe":
        chosen = recipe.train_transforms or light(recipe.preprocessing)
    elif isinstance(transforms, str):
        chosen = {"none": sized, "light": light, "strong": strong}[transforms](recipe.preprocessing)
    else:
        chosen = tuple(transforms)
    return replace(recipe, train_transforms=chosen)


def sized(preprocessing: Preprocessing) -> tuple[Transform, ...]:
    """The test size."""
    return () if preprocessing.size is None else (Resize((preprocessing.size,), preprocessing.keep_ratio),)


def light(preprocessing: Preprocessing) -> tuple[Transform, ...]:
    """The test size, and a flip half of the time."""
    return (*sized(preprocessing), Flip())


def strong(preprocessing: Preprocessing) -> tuple[Transform, ...]:
    """Colours, a canvas of up to twice the edges, crops, the test size, and a flip."""
    return PhotometricDistortion(), Expand((1, 2)), MinIoUCrop(), *light(preprocessing)


def _resized_recipe(recipe: Recipe, image_size: int | Sequence[int]) -> Recipe:
    own = recipe.preprocessing.size
    if own is None:
        raise ValueError(f"image_size: {recipe.name} takes images at their own size; expected none, or another recipe=")
    edge = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if recipe.preprocessing.keep_ratio:
        # Bounds may stand in either order; here long before short.
        own, edge = (max(own), min(own)), (max(edge), min(edge))
    factors = edge[0] / own[0], edge[1] / own[1]
    return replace(
        recipe,
        preprocessing=replace(recipe.preprocessing, size=edge),
        train_transforms=tuple(_scaled(transform, factors) for transform in recipe.train_transforms),
    )


def _scaled(transform: Transform, factors: tuple[float, float]) -> Transform:
    """A transform with its sizes in pixels scaled; those that are parts of the image's stay. factors: of the first and
    the second edge, which are the long and the short one where a transform keeps the aspect ratio."""
    mean = (factors[0] * factors[1]) ** 0.5
    if isinstance(transform, OneOf):
        policies = tuple(tuple(_scaled(inner, factors) for inner in policy) for policy in transform.policies)
        return replace(transform, policies=policies)
    if isinstance(transform, Resize):
        return replace(transform, sizes=tuple(_edges(s, factors, transform.keep_ratio) for s in transform.sizes))
    if isinstance(transform, ScaleJitter):
        return replace(transform, size=_edges(transform.size, factors, transform.keep_ratio))
    if isinstance(transform, (Mosaic, PadTo)):
        return replace(transform, size=_edges(transform.size, factors, False))
    if isinstance(transform, RandomCrop):
        # A range is of both edges alike.
        by = factors if transform.kind == "absolute" else (mean, mean)
        return replace(transform, size=_edges(transform.size, by, False))
    if isinstance(transform, CenterCropPad):
        return replace(transform, size=_edges(transform.size, factors, False), border=round(transform.border * mean))
    return transform


def _edges(size: tuple[int, int], factors: tuple[float, float], keep_ratio: bool) -> tuple[int, int]:
    first, second = (max(size), min(size)) if keep_ratio else size
    return max(1, round(first * factors[0])), max(1, round(second * factors[1]))


def require_transforms(given: Any) -> None:
    """Raises ValueError where this is neither a known name nor a list of transforms."""
    if isinstance(given, str):
        return
    if not isinstance(given, Sequence):
        raise ValueError(f"transforms: expected a list or one of {', '.join(TRANSFORMS)}, found {given!r}")
    for number, transform in enumerate(given):
        if isinstance(transform, type) or not callable(transform):
            raise ValueError(
                f"transforms[{number}]: expected a transform such as Flip(), called with a sample and a generator of "
                f"random numbers, found {transform!r}"
            )
