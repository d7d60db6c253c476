"""A training's folder, and the detector that any verb was given.

A run folder holds ``manifest.json`` (recipe, classes, versions, seeds, dataset fingerprint), ``metrics.jsonl``,
``best.safetensors`` and ``last.safetensors`` (weights for use) and ``last.pt`` (everything that training goes on from).
Files are written under another name first and then moved into place, so that none is ever half there. Nothing but
tensors, numbers and text is stored, and nothing else is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.showing import html_table
from ..errors import RunError, require_same_classes
from ..evaluators.base import shown_in_notebook
from ..evaluators.text import table
from .manifest import METRICS, read_manifest, read_metrics
from .weights import Trained, load_weights, recipe_of

if TYPE_CHECKING:
    from torch import nn

    from ..models.recipe import Recipe


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

    def __str__(self) -> str:
        return "\n".join(table([("", repr(self)), *self._told()]))

    def _repr_html_(self) -> str:
        return html_table([("", repr(self)), *self._told()])

    def _told(self) -> list[tuple[str, str]]:
        """What a person wants to know of a run first: name and value."""
        scored = [line for line in self.history if "metrics" in line]
        best = scored[-1]["metrics"] if scored else {}
        figures = {f"last {name}": "none" if value is None else f"{value:.4f}" for name, value in best.items()}
        told = {
            "classes": ", ".join(self.classes[:10]) + (" ..." if len(self.classes) > 10 else ""),
            "steps": str(max((line["step"] for line in self.history if "step" in line), default=0)),
            "weights": str(self.weights_file),
        }
        return list({**told, **figures}.items())

    def to_dict(self) -> dict[str, Any]:
        """As plain values: the folder, the manifest and every line of the metrics file."""
        return {"folder": str(self.folder), "manifest": self.manifest, "history": self.history}

    def to_pandas(self) -> Any:
        """A row a line of the metrics file, the figures of scorings as ``metrics.NAME``; needs pandas."""
        import pandas

        return pandas.json_normalize(self.history)

    def show(self) -> None:
        """Shows what the run is: as a table in a notebook, else as text."""
        if not shown_in_notebook(self):
            print(self)

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
            with a ``recipe``; a ``.pth`` checkpoint that MMDetection trained; a file that ``sdk.export`` wrote.
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
        if path.suffix in (".onnx", ".pt2", ".xml"):
            from .exported import load_exported

            return load_exported(path)
        from .. import models

        if path.suffix == ".pth":
            return replace(load(models.from_mmdetection(path)), source=str(path))

        if not models.is_name(str(what)):
            raise RunError(
                f"{what}: neither a run folder, a .safetensors or .pth file, nor a name of the zoo (`sdk zoo`)"
            )
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
    from ..models.methods.rpn import RPN

    if not isinstance(trained.model, RPN):
        require_same_classes(trained.classes, int(trained.model.num_classes), classes)  # type: ignore[arg-type]
