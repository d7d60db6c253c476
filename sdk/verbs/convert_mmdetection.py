"""A checkpoint of MMDetection as files of this project."""

from __future__ import annotations

import json
import os
import pprint
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ..errors import SdkError
from ..models import from_mmdetection
from ..models.mmdetection.building import Translated, recipe_of
from ..models.mmdetection.checkpoint import configuration
from ..models.mmdetection.settings import Settings
from ..models.recipe import Recipe
from ..models.weights.reading import read
from ..reports.progress import say
from ..results.files import write_bytes
from ..results.weights import save_weights

WEIGHTS, RECIPE, REPORT = "weights.safetensors", "recipe.py", "report.txt"


def convert_mmdetection(
    checkpoint: str | os.PathLike, out: str | os.PathLike, *, config: str | os.PathLike | None = None
) -> Path:
    """Writes a checkpoint that MMDetection trained as a weights file that every verb takes.

    Beside ``weights.safetensors`` stand ``recipe.py``, the recipe as Python that can be read and changed, and
    ``report.txt``, every setting of the configuration and what became of it.

    Args:
        checkpoint: the ``.pth`` file.
        out: a new folder.
        config: the configuration, where the checkpoint does not carry it.

    Returns:
        The weights file.

    Raises:
        SdkError: when ``out`` exists. WeightsError, ConfigError: as of ``models.from_mmdetection``.
    """
    source, folder = Path(checkpoint), Path(out)
    if folder.exists():
        raise SdkError(f"{folder}: exists already; give a new folder")
    detector = from_mmdetection(source, config)
    recipe: Recipe = detector.recipe  # type: ignore[assignment]
    settings = configuration(source, read(source), config)
    recipe_of(settings, recipe.name)
    folder.mkdir(parents=True)
    about = {"source": source.name}
    save_weights(
        folder / WEIGHTS, detector, recipe=recipe, classes=detector.classes or (), category_ids=(), about=about
    )
    write_bytes(folder / RECIPE, as_python(recipe).encode())
    write_bytes(folder / REPORT, ("\n".join(report(settings)) + "\n").encode())
    say(f"{folder}: {recipe.name}, {recipe.num_classes} classes; the report names what is not translated")
    return folder / WEIGHTS


def report(settings: Settings) -> Iterator[str]:
    """A line for each setting: whether it was translated, decides over nothing here, or was not read."""
    for key in sorted(settings):
        yield from _lines(settings, key, key)


def _lines(owner: Settings, key: str, name: str) -> Iterator[str]:
    value = owner[key]
    state = "of no effect here" if key in owner.passed else "translated" if key in owner.used else "not read"
    parts = value if isinstance(value, (list, tuple)) else [value]
    inner = [part for part in parts if isinstance(part, Settings)]
    if not inner:
        yield f"{name} = {value!r:.120}: {state}"
    for number, part in enumerate(inner):
        below = name if part is value else f"{name}[{number}]"
        for one in part:
            yield from _lines(part, one, f"{below}.{one}")


def as_python(recipe: Recipe) -> str:
    """A recipe as a Python file that defines ``RECIPE``."""
    used: dict[str, str] = {}
    plain = Recipe(name="", build=recipe.build)
    lines = []
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if value == getattr(plain, field.name) and field.name not in ("name", "build"):
            continue
        given = _json(value) if field.name == "source" else _expression(value, used)
        lines.append(f"    {field.name}={given},")
    used["Recipe"] = Recipe.__module__
    imports = [f"from {module} import {name}" for name, module in sorted(used.items(), key=lambda pair: pair[::-1])]
    head = f'"""{recipe.name}, translated from MMDetection."""'
    return "\n".join([head, "", "import json", "", *imports, "", "RECIPE = Recipe(", *lines, ")", ""])


def _json(text: str) -> str:
    """JSON as an expression that can be read and changed."""
    return f"json.dumps(\n{pprint.pformat(json.loads(text), width=100, sort_dicts=False)}\n)"


def _expression(value: Any, used: dict[str, str]) -> str:
    if isinstance(value, Translated):
        used["Translated"] = Translated.__module__
        return f"Translated({_json(value.model)})"
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        used[name] = type(value).__module__
        inner = ", ".join(f"{f.name}={_expression(getattr(value, f.name), used)}" for f in fields(value) if f.init)
        return f"{name}({inner})"
    if isinstance(value, tuple):
        inner = ", ".join(_expression(one, used) for one in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)
