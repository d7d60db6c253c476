"""The contract of a transform."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from ..sample import Sample


@runtime_checkable
class Transform(Protocol):
    """A frozen dataclass that maps a sample to another; every random draw comes from ``rng``."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample: ...
