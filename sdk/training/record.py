"""The folder and the manifest of a training, and whether an earlier one of the folder can go on."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..datasets.base import DetectionDataset
from ..errors import RunError
from ..models.recipe import Recipe
from ..reports.progress import say
from ..results.manifest import MANIFEST, differences, read_manifest, surroundings
from ..results.run import Run
from ..results.state import kept_states
from .options import DECIDING, Options
from .plan import Plan

DRAWN = "batch.png"
"""What a dry run draws."""


def run_folder(out: str | os.PathLike | None, name: str, resume: str | None) -> tuple[Path, bool]:
    """The run folder and whether a training is resumed in it.

    Without ``out`` it is ``runs/<name>``, with a number where that is taken; resuming takes the newest of these.
    """
    if resume not in (None, "auto"):
        raise ValueError(f"resume: expected None or 'auto', found {resume!r}")
    if out is not None:
        folder = Path(out)
    else:
        name = name.replace("/", "-")
        first = Path("runs") / name
        numbered = itertools.chain([first], (first.with_name(f"{name}-{i}") for i in itertools.count(2)))
        taken = list(itertools.takewhile(_is_taken, numbered))
        free = first if not taken else first.with_name(f"{name}-{len(taken) + 1}")
        folder = taken[-1] if taken and resume else free
    if not (folder / MANIFEST).exists():
        return folder, False
    if resume is None:
        raise RunError(f"{folder}: holds a run; resume='auto' goes on with it, another out= begins anew")
    return folder, bool(kept_states(folder))


def _is_taken(folder: Path) -> bool:
    """Whether something is there that a new run must not mix with; what a dry run has drawn is not."""
    return folder.exists() and not (folder.is_dir() and [path.name for path in folder.iterdir()] == [DRAWN])


def tell_differences(run: Path, manifest: dict[str, Any]) -> None:
    """Says what differs between an earlier run and this one: data, options, recipe, versions, commits, hardware."""
    parts = ("dataset", "classes", "options", "recipe", "versions", "commits", "hardware")
    found = differences(read_manifest(run), {part: manifest[part] for part in parts})
    say(f"compared with {run}: {'nothing differs' if not found else f'{len(found)} values differ'}")
    for line in found:
        say(f"  {line}")


def describe(
    recipe: Recipe,
    plan: Plan,
    train: DetectionDataset,
    detector: nn.Module,
    options: Options,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of a run: what was trained, on what, how, and with which versions.

    given: ``dataset`` and ``model`` as they were given. The manifest holds them with the options under ``given``, and
    under ``options`` what became of these on this machine.
    """
    own_anchors = {"anchors": detector.fitted_anchors} if hasattr(detector, "fitted_anchors") else {}
    return {
        "model": {
            "name": recipe.name,
            "type": type(detector).__name__,
            "num_classes": len(train.classes),
            **own_anchors,
        },
        "classes": list(train.classes),
        "category_ids": [int(i) for i in train.category_ids],
        "dataset": {
            "type": type(train).__name__,
            "images": len(train),
            "fingerprint": train.fingerprint,
            "amendments": list(getattr(train, "amendments", ())),
        },
        "given": {
            **{name: restorable(value) for name, value in given.items()},
            **{option.name: restorable(getattr(options, option.name)) for option in fields(options)},
        },
        "options": asdict(plan),
        "sampling": plain(options.sampling),
        "recipe": {field.name: plain(getattr(recipe, field.name)) for field in fields(recipe)},
        **surroundings(),
    }


def restorable(value: Any) -> Any:
    """A value as JSON can hold it and give it back; paths in full, and an ``object`` where it is no text or number."""
    if isinstance(value, Run):
        value = value.folder
    if isinstance(value, (str, os.PathLike)) and Path(value).exists():
        return str(Path(value).absolute())
    found = plain(value)
    if _is_plain(value) or isinstance(value, os.PathLike):
        return found
    return {"object": found}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int, float, bool, type(None)))


def plain(value: Any) -> Any:
    """A value as JSON can hold it; dataclasses keep their name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, partial):
        return {"calls": plain(value.func), "with": plain([*value.args]), **plain(value.keywords)}
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value).split(" at 0x")[0]


def require_same_training(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """What a resumed training does otherwise than the folder's, in words, where it may; else RunError that says it.

    It may spread the same total batch otherwise over devices and passes, and train for more epochs.
    """
    # Through JSON, so that tuples and lists compare equal.
    old, new = read_manifest(folder), json.loads(json.dumps(manifest))
    for either in (old, new):
        # Of the recipe what decides over the training; the rest may change from version to version.
        recipe = either.get("recipe") or {}
        decides = ("preprocessing", "train_transforms", "sampling", "optimizer")
        either["recipe"] = {name: recipe.get(name) for name in decides}
        given = either.get("given") or {}
        # Of a version that knew fewer options, they were not given.
        either["given"] = {name: None if given.get(name) == [] else given.get(name) for name in DECIDING}
    changes = _allowed_changes(old["options"], new["options"])
    for part in ("model", "classes", "category_ids", "dataset", "options", "given", "recipe", "sampling"):
        if old.get(part) != new[part]:
            if isinstance(new[part], dict):
                names = [name for name in new[part] if old[part].get(name) != new[part][name]]
                told = "; ".join(f"{n} was {old[part].get(n)!r:.300}, is {new[part][n]!r:.300}" for n in names)
            else:
                told = f"was {old[part]!r:.200}, is {new[part]!r:.200}"
            raise RunError(f"{folder}: cannot be resumed, its {part} differs: {told}")
    return changes


SPREAD = ("batch_size", "accumulate", "world_size")
"""Their product is the total batch size; how it comes about decides over the weights by rounding alone."""


def _allowed_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs and may; in ``new`` it is set to the old value, so that the rest can be compared."""
    changes = []
    if all(isinstance(old.get(name), int) for name in SPREAD):
        before, after = (" x ".join(str(options[name]) for name in SPREAD) for options in (old, new))
        if before != after and math.prod(old[n] for n in SPREAD) == math.prod(new[n] for n in SPREAD):
            changes.append(f"images x passes x devices: {after} instead of {before}, the same total batch")
            new.update({name: old[name] for name in SPREAD})
    before, after = old["schedule"], new["schedule"]
    if after["epochs"] > before["epochs"]:
        changes.append(f"{after['epochs']} epochs instead of {before['epochs']}, and a learning rate that fits them")
        # Drops and warm-up follow the number of epochs.
        after.update({name: before[name] for name in ("epochs", "drops")})
        new["warmup_steps"] = old["warmup_steps"]
    before, after = old.get("max_steps"), new["max_steps"]
    if before is not None and (after is None or after > before):
        changes.append(
            f"{'no end before the last epoch' if after is None else f'{after} steps'} instead of {before} steps"
        )
        new["max_steps"], new["warmup_steps"] = before, old["warmup_steps"]
    elif before is None:
        # Of a version that knew no such end.
        old.setdefault("max_steps", None)
    return changes
