"""The contract that makes a class a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .sample import Sample


@dataclass(frozen=True)
class ImageInfo:
    """What is known of an image without decoding it: its (H, W) and the labels of its objects that are not ignored."""

    image_id: Any
    size: tuple[int, int]
    labels: np.ndarray
    path: str | None = None


@runtime_checkable
class DetectionDataset(Protocol):
    """A sequence of samples with class names and a scoring protocol of its own.

    A plain class with these members is a dataset: nothing is registered, nothing is inherited.
    """

    @property
    def classes(self) -> Sequence[str]:
        """Class names in label order."""
        ...

    @property
    def category_ids(self) -> Sequence[int]:
        """Original id of each label."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the annotations' content; equal for equal datasets."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def info(self, index: int) -> ImageInfo: ...

    def evaluator(self) -> Any:
        """What scores it by its own protocol, an ``evaluators.base.Evaluator``."""
        ...


def from_above(module: str, name: str) -> Any:
    """What a room above this one defines, looked up when it is first asked for.

    Datasets know nothing of what stands on them but these names: their own evaluator, and the way to FiftyOne and back.
    """
    return getattr(import_module(f"..{module}", __package__), name)


def own_evaluator(dataset: Any) -> Any:
    """The evaluator of the protocol that a dataset of this room names."""
    return from_above("evaluators.choosing", "evaluator_for")(dataset, dataset.protocol)
