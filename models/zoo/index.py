"""What one looks for in the zoo, without building or importing any of it.

``index.json`` has it of every row. ``python -m sdk.models.zoo.index`` writes it anew, which takes minutes, for the
parameters of every model are counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from . import published, recipes
from .builders import innermost, own_backbone

if TYPE_CHECKING:
    from ..recipe import Recipe

FILE = "index.json"


@dataclass(frozen=True)
class Entry:
    """One name of the zoo, in the terms by which one looks for it.

    method: name of the method's file, such as ``faster_rcnn``. backbone: name of the pretrained backbone, such as
    ``resnext101_32x4d``; else of its class, such as ``resnet50``. parameters: their number. document, weights,
    figures: what was published, as in ``Recipe``.
    """

    name: str
    method: str
    backbone: str
    dataset: str
    epochs: int
    parameters: int
    document: str
    weights: str | None
    figures: Mapping[str, float]


@cache
def index() -> dict[str, Entry]:
    """Every row by its name, in alphabetical order."""
    rows = json.loads(resources.files(__package__ or __name__).joinpath(FILE).read_text(encoding="utf-8"))
    nothing = {"document": "", "weights": None, "figures": {}}
    return {name: Entry(name=name, **row, **published().get(name, nothing)) for name, row in rows.items()}


def entry_of(recipe: Recipe, parameters: int | None = None) -> Entry:
    """The entry of a recipe. parameters: their number, if it is known; else they are counted."""
    return Entry(
        name=recipe.name,
        method=innermost(recipe.build).__module__.rsplit(".", 1)[-1],
        backbone=_backbone(recipe),
        dataset=recipe.dataset,
        epochs=recipe.schedule.epochs,
        parameters=count_parameters(recipe) if parameters is None else parameters,
        document=recipe.document,
        weights=recipe.weights,
        figures=recipe.published,
    )


def count_parameters(recipe: Recipe) -> int:
    """Number of parameters, counted on a model that is built without memory for them."""
    import torch

    with torch.device("meta"):
        return sum(value.numel() for value in recipe.build(recipe.num_classes).parameters())


def written() -> str:
    """The content of ``index.json``, from the recipes."""
    kept = ("method", "backbone", "dataset", "epochs", "parameters")
    entries = map(entry_of, recipes().values())
    rows = [f"{json.dumps(e.name)}: {json.dumps({key: getattr(e, key) for key in kept})}" for e in entries]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def _backbone(recipe: Recipe) -> str:
    if recipe.backbone_weights is not None:
        return recipe.backbone_weights.rsplit("/", 1)[-1]
    backbone = own_backbone(recipe)
    arguments: tuple = ()
    while isinstance(backbone, partial):
        arguments, backbone = backbone.args or arguments, backbone.func
    return "" if backbone is None else f"{backbone.__name__.lower()}{''.join(map(str, arguments[:1]))}"


if __name__ == "__main__":
    Path(__file__).with_name(FILE).write_text(written(), encoding="utf-8")
