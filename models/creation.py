"""From a name to a detector."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeVar

import torch

from ..datasets.opening import open_path
from .detectors.base import Detector
from .methods.ld import DistilledDetector
from .zoo import find_recipe, name_on, recipes

M = TypeVar("M")


def class_count(source: Any, default: int) -> int:
    """The class count that a number, a dataset (its ``classes``) or nothing (``default``) stands for."""
    if source is None:
        return default
    count = source if isinstance(source, int) else len(getattr(source, "classes", ()))
    if isinstance(source, bool) or count < 1:
        raise ValueError(f"num_classes: expected a positive number or a dataset with classes, found {source!r:.100}")
    return count


def class_names(source: Any) -> tuple[str, ...] | None:
    """The classes of a dataset; of a list of datasets, paths or pairs with shares, in the order of ``datasets.mix``.

    None where the source has no classes. Raises ValueError for an entry of a list that has none.
    """
    if not isinstance(source, list | tuple):
        classes = getattr(source, "classes", None)
        return None if classes is None else tuple(classes)
    found: dict[str, None] = {}
    for place, entry in enumerate(source):
        one: Any = entry[0] if isinstance(entry, tuple) and entry else entry
        if isinstance(one, str | PathLike):
            one = open_path(str(one))
        if not hasattr(one, "classes"):
            raise ValueError(f"num_classes[{place}]: expected a dataset or the path of one, found {one!r:.100}")
        found |= dict.fromkeys(map(str, one.classes))
    return tuple(found)


def _require_name_first(name: Any, num_classes: Any) -> None:
    """Raises ValueError where a dataset stands in the place of the name."""
    if not isinstance(name, str):
        raise ValueError(
            f"name: expected the name of a row, found {name!r:.100}; the name comes first, the dataset second: "
            "create(name, num_classes=dataset)"
        )
    if isinstance(num_classes, str) and num_classes in recipes() and name not in recipes():
        raise ValueError(
            f"num_classes: {num_classes!r} is the name of a row, and {name!r} is none: are they exchanged? The name "
            f"comes first: create({num_classes!r}, {name!r})"
        )


def seeded(seed: int | None, build: Callable[[], M]) -> M:
    """What ``build`` makes with random numbers that ``seed`` decides; the caller's random state stays as it was."""
    if seed is None:
        return build()
    # Weights are drawn on the CPU; the state of GPUs is left alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def create(
    name: str,
    num_classes: Any = None,
    weights: str | PathLike[str] | None = "published",
    *,
    backbone: str | None = None,
    seed: int | None = None,
) -> Detector:
    """A detector by the published name of its row, such as ``paa_r50_fpn_1.5x_coco``.

    num_classes: a number, or a dataset (or the path of one) whose classes are counted, or a list of these, whose
    classes are matched by name; the row's own where absent.
    weights: ``published`` (the row's checkpoint), ``backbone`` (the pretrained backbone it was trained from), a
    file, or None (random, nothing is downloaded). With another class count than the checkpoint's the class layers
    start fresh, and this is said. A distilled detector's teacher is loaded once training starts, unless ``weights`` is
    None. backbone: another one for a row with a feature pyramid, such as ``timm/convnext_tiny.fb_in1k``; ``published``
    are then the backbone's own weights, and a file may hold them. seed: decides all fresh weights; PyTorch's own state
    decides them, and goes on, where absent.
    """
    _require_name_first(name, num_classes)
    if isinstance(num_classes, str | PathLike):
        num_classes = open_path(str(num_classes))
    recipe = find_recipe(name if backbone is None else name_on(name, backbone))
    if weights == "published" and "+timm/" in recipe.name:
        weights = "backbone"
    names = class_names(num_classes)
    count = class_count(num_classes if names is None else len(names), recipe.num_classes)
    model: Detector = seeded(seed, lambda: recipe.build(count))  # type: ignore[assignment]
    model.recipe = recipe
    model.classes = names
    if weights is not None:
        from .weights import load_weights

        load_weights(model, recipe, weights)
        if isinstance(model, DistilledDetector):
            model.teacher_weights = "published"
    return model
