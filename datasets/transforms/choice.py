"""Choosing between transforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..sample import Sample
from .base import Transform


@dataclass(frozen=True)
class OneOf:
    """Applies one of several sequences of transforms, each equally likely."""

    policies: tuple[tuple[Transform, ...], ...]

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("OneOf.policies: expected at least one sequence of transforms")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        for transform in self.policies[int(rng.integers(len(self.policies)))]:
            sample = transform(sample, rng)
        return sample
