"""What a training leaves behind, and how it is read again.

A run folder holds ``manifest.json`` (recipe, classes, versions, seeds, dataset fingerprint), ``metrics.jsonl``,
``best.safetensors`` and ``last.safetensors`` (weights for use) and ``last.pt`` (everything that training goes on from).
Files are written under another name first and then moved into place, so that none is ever half there. Nothing but
tensors, numbers and text is stored, and nothing else is ever unpickled.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RunError, require_same_classes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .models.recipe import Recipe

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
TRAINING_STATE = "last.pt"
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


class Run:
    """A training's folder, with the model that came out of it.

    ``sdk.evaluate``, ``sdk.predict`` and ``sdk.explore`` take it; so does a new ``sdk.fit`` as the model to start from.
    """

    def __init__(self, folder: str | os.PathLike, weights: str = "best", model: nn.Module | None = None) -> None:
        """Opens a run folder.

        Args:
            folder: the run folder.
            weights: ``best`` or ``last``.
            model: a detector of the same architecture, needed where the run's was not made from a name of the zoo;
                its weights are replaced.

        Raises:
            RunError: when the folder is no run, or has no such weights.
        """
        self.folder = Path(folder)
        self.weights = weights
        self._given = model
        self.manifest = read_manifest(self.folder)
        if not self.weights_file.is_file():
            raise RunError(f"{self.folder}: no {self.weights_file.name}; the training ended before its first epoch did")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.manifest['model']['name']}, {len(self.classes)} classes)"

    @property
    def weights_file(self) -> Path:
        """The safetensors file in use."""
        return self.folder / f"{self.weights}.safetensors"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(self.manifest["classes"])

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The dataset's own id of each label."""
        return tuple(self.manifest["category_ids"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """Every line of the metrics file."""
        return read_metrics(self.folder / METRICS)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run's model."""
        return self.trained.recipe

    @property
    def model(self) -> nn.Module:
        """The detector, in eval mode."""
        return self.trained.model

    @cached_property
    def trained(self) -> Trained:
        """The detector with its weights, classes and recipe."""
        return load_weights(self.weights_file, model=self._given)


def load(what: Any, model: nn.Module | None = None) -> Trained:
    """The detector that a verb was given.

    Args:
        what: a Run, a run folder, a ``.safetensors`` file of one, a name of the zoo (published weights), or a detector
            with a ``recipe``.
        model: the architecture, where a folder or file needs it.

    Raises:
        RunError: when it is none of these.
    """
    if isinstance(what, Trained):
        return what
    if isinstance(what, Run):
        return what.trained
    if isinstance(what, (str, os.PathLike)):
        path = Path(what)
        if path.is_dir():
            return Run(path, model=model).trained
        if path.suffix == ".safetensors":
            return load_weights(path, model=model)
        from . import models

        if str(what) not in models.names():
            raise RunError(f"{what}: neither a run folder, nor a .safetensors file, nor a name of the zoo (`sdk zoo`)")
        return replace(load(models.create(str(what))), source=str(what))
    if hasattr(what, "predict") and hasattr(what, "num_classes"):
        classes = getattr(what, "classes", None)
        ids = getattr(what, "category_ids", None)
        return Trained(
            what,
            recipe_of(what),
            None if classes is None else tuple(classes),
            None if ids is None else tuple(ids),
            type(what).__name__,
        )
    raise RunError(f"expected a run, a run folder, a weights file, a name or a detector; found {type(what).__name__}")


def require_fitting(trained: Trained, classes: Sequence[str]) -> None:
    """Raises ClassMismatch where the detector's classes are not these; a proposal network has none of its own."""
    from .models.methods.rpn import RPN

    if not isinstance(trained.model, RPN):
        require_same_classes(trained.classes, int(trained.model.num_classes), classes)  # type: ignore[arg-type]


def recipe_of(model: nn.Module) -> Recipe:
    """The recipe that the model was created from, or a plain one for a detector of the user's own."""
    recipe = getattr(model, "recipe", None)
    if recipe is not None:
        return recipe
    from .models.recipe import Recipe

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
    write_bytes(path, save(tensors, metadata))


def load_weights(path: str | os.PathLike, model: nn.Module | None = None) -> Trained:
    """A detector from a safetensors file of a run.

    Raises:
        RunError: when the file is missing, broken, or of another architecture.
    """
    from safetensors import SafetensorError, safe_open

    from . import models

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
    if model is None:
        if name not in models.names():
            raise RunError(
                f"{path}: was trained with a {name}, which is no name of the zoo; "
                "build that model and give it: sdk.Run(folder, model=model)"
            )
        model = models.create(name, num_classes=int(metadata.get("num_classes", len(classes))), weights=None)
    load_state(model, state, source=str(path))
    model.classes = classes or None  # type: ignore[assignment]
    ids = tuple(json.loads(metadata.get("category_ids", "[]"))) or None
    try:
        recipe = as_trained(recipe_of(model), metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: its preprocessing cannot be read: {error}") from error
    return Trained(model.eval(), recipe, classes or None, ids, str(path))


def as_trained(recipe: Recipe, metadata: Mapping[str, str]) -> Recipe:
    """A model's recipe with the name, the preprocessing and the needs that its weights were trained with."""
    from .models.recipe import Preprocessing

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


def save_training_state(path: Path, state: dict[str, Any]) -> None:
    """Writes everything that training goes on from, as one file, at once."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_training_state(path: Path) -> dict[str, Any]:
    """What ``save_training_state`` wrote; nothing but tensors and plain values is read."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise RunError(f"{path}: not a readable training state: {error}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder."""
    path = folder / MANIFEST
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder (there is no {MANIFEST} in it)")
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON: {error}") from error
    missing = [key for key in ("model", "classes", "category_ids", "options") if key not in manifest]
    if missing:
        raise RunError(f"{path}: misses {', '.join(missing)}")
    return manifest


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that was cut off is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file at once."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file at once: after a crash the old or the new content is there, never a part of either."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
