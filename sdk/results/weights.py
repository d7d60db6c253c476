"""Weights files: safetensors that say which model they are of, its classes, and how images are prepared for it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .files import write_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..models.recipe import Recipe

NEEDS = ("needs_masks", "needs_semantic", "needs_proposals")
"""What a recipe may ask of a dataset besides boxes."""


@dataclass(frozen=True)
class Trained:
    """A detector with what is needed to use it.

    classes, category_ids: of the dataset that it was trained on, or none where nobody said. source: for error texts.
    """

    model: nn.Module
    recipe: Recipe
    classes: tuple[str, ...] | None
    category_ids: tuple[int, ...] | None
    source: str


def recipe_of(model: nn.Module) -> Recipe:
    """The recipe that the model was created from, or a plain one for a detector of the user's own."""
    recipe = getattr(model, "recipe", None)
    if recipe is not None:
        return recipe
    from ..models.recipe import Recipe

    return Recipe(name=type(model).__name__, build=type(model), document="", num_classes=int(model.num_classes))  # type: ignore[arg-type]


def save_weights(
    path: Path,
    model: nn.Module,
    *,
    recipe: Recipe,
    classes: Sequence[str],
    category_ids: Sequence[int],
    about: Mapping[str, str] | None = None,
) -> None:
    """Writes a detector's weights as one safetensors file that says what it is and how images are prepared for it.

    classes: names in label order; empty where nobody knows them. about: further facts, such as where they come from.
    """
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    metadata = {
        **(about or {}),
        "format": "pt",
        "model": recipe.name,
        "preprocessing": json.dumps(asdict(recipe.preprocessing)),
        "needs": json.dumps([name for name in NEEDS if getattr(recipe, name)]),
        "num_classes": str(int(model.num_classes)),  # type: ignore[arg-type]
        "classes": json.dumps(list(classes)),
        "category_ids": json.dumps([int(i) for i in category_ids]),
    }
    if hasattr(model, "fitted_anchors"):
        metadata["anchors"] = json.dumps(model.fitted_anchors)
    if recipe.source is not None:
        metadata["configuration"] = recipe.source
    write_bytes(path, in_order(save(tensors, metadata)))


def in_order(content: bytes) -> bytes:
    """A safetensors file with its header's entries in alphabetical order: equal weights are equal files."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(dict(sorted(header.items())), separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def load_weights(path: str | os.PathLike, model: nn.Module | None = None) -> Trained:
    """A detector from a safetensors file of a run.

    Raises:
        RunError: when the file is missing, broken, or of another architecture.
    """
    from safetensors import SafetensorError, safe_open

    from .. import models
    from ..models.mmdetection.building import from_source
    from ..models.priors import replace_anchors

    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise RunError(f"{path}: not a readable safetensors file: {error}") from error
    if "model" not in metadata or "classes" not in metadata:
        raise RunError(f"{path}: says neither its model nor its classes; give a file that sdk.fit wrote")
    name, classes = metadata["model"], tuple(json.loads(metadata["classes"]))
    if model is None and "configuration" in metadata:
        model = from_source(metadata["configuration"], name, int(metadata["num_classes"]))
    elif model is None:
        if not models.is_name(name):
            raise RunError(
                f"{path}: was trained with a {name}, which is no name of the zoo; "
                "build that model and give it: sdk.Run(folder, model=model)"
            )
        model = models.create(name, num_classes=int(metadata.get("num_classes", len(classes))), weights=None)
    load_state(model, state, source=str(path))
    replace_anchors(model, json.loads(metadata.get("anchors", "{}")))
    model.classes = classes or None  # type: ignore[assignment]
    ids = tuple(json.loads(metadata.get("category_ids", "[]"))) or None
    try:
        recipe = as_trained(recipe_of(model), metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: its preprocessing cannot be read: {error}") from error
    return Trained(model.eval(), recipe, classes or None, ids, str(path))


def as_trained(recipe: Recipe, metadata: Mapping[str, str]) -> Recipe:
    """A model's recipe with the name, the preprocessing and the needs that its weights were trained with."""
    from ..models.recipe import Preprocessing

    if "preprocessing" not in metadata:
        return recipe
    # JSON has lists where these fields are tuples.
    given = json.loads(metadata["preprocessing"]).items()
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given}
    needs = json.loads(metadata["needs"])
    return replace(
        recipe,
        name=metadata["model"],
        preprocessing=Preprocessing(**fields),
        **{name: name in needs for name in NEEDS},
    )


def load_state(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Loads every tensor, or raises RunError that lists what is missing, left over or of another shape."""
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    if missing or extra or shapes:
        faults = {"missing": missing, "left over": extra, "of another shape": sorted(shapes)}
        told = "; ".join(f"{len(keys)} {what}: {', '.join(keys[:5])}" for what, keys in faults.items() if keys)
        raise RunError(f"{source}: the weights are not those of this {type(model).__name__}: {told}")
    model.load_state_dict(state, strict=True)
