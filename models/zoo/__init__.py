"""The published rows as recipes, found by name. A new file with a list ``RECIPES`` adds its rows."""

from __future__ import annotations

import difflib
import json
import pkgutil
from dataclasses import replace
from functools import cache
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..recipe import Recipe


@cache
def recipes() -> dict[str, Recipe]:
    """Every recipe by its published name, in alphabetical order."""
    facts_of = published()
    found: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(__path__):
        for one in getattr(import_module(f"{__name__}.{module.name}"), "RECIPES", ()):
            if one.name in found:
                raise ValueError(f"two recipes are named {one.name!r}")
            facts = facts_of.get(one.name)
            found[one.name] = one if facts is None else with_published(one, facts)
    return dict(sorted(found.items()))


@cache
def published() -> dict[str, dict[str, Any]]:
    """The ``document``, the address of the ``weights`` and the ``figures`` that were published, by the row's name."""
    return json.loads(resources.files(__name__).joinpath("published.json").read_text(encoding="utf-8"))


@cache
def parity() -> dict[str, Any]:
    """What was compared with the reference implementation: ``reference`` says how, ``rows`` what came out, by name."""
    return json.loads(resources.files(__name__).joinpath("parity.json").read_text(encoding="utf-8"))


def with_published(recipe: Recipe, facts: dict) -> Recipe:
    """The recipe with the document, the checkpoint's address and the figures that were published for it."""
    return replace(recipe, document=facts["document"], weights=facts["weights"], published=facts["figures"])


def name_on(name: Any, backbone: str) -> str:
    """The name of a row on another backbone, such as ``timm/convnext_tiny.fb_in1k``."""
    if not isinstance(name, str) or name not in recipes():
        raise ValueError(f"backbone: only the name of a row can be given another one, found {name!r:.100}")
    if not backbone.startswith("timm/"):
        raise ValueError(f"backbone: expected timm/ and the name of an extractor, found {backbone!r}")
    return f"{name}+{backbone}"


def find_recipe(name: str) -> Recipe:
    """The recipe of a published row, or of one on another backbone (``ROW+timm/EXTRACTOR``).

    An unknown name is an error with the closest names.
    """
    known = recipes()
    if name not in known and "+timm/" in name:
        from .backbones import on_extractor

        row, _, extractor = name.partition("+timm/")
        return on_extractor(find_recipe(row), extractor)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
        hint = f"; the closest are {', '.join(close)}" if close else ""
        raise ValueError(f"no recipe is named {name!r}{hint}. `sdk zoo` lists all {len(known)}")
    return known[name]
