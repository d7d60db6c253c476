"""Which of the assigned priors a loss is computed on.

Shape letters: P priors of one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .assigners.base import Assignment


class Sampler(Protocol):
    """Chooses positives and negatives of one image."""

    def __call__(self, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """Indices of the chosen positives and negatives, ascending."""
        ...


def random_choice(candidates: Tensor, count: int) -> Tensor:
    """``count`` of the candidates, drawn without replacement from torch's generator."""
    order = torch.randperm(len(candidates), device=candidates.device)[:count]
    return candidates[order]


@dataclass
class RandomSampler:
    """At most ``num`` priors, of which at most ``pos_fraction`` are positive, drawn at random.

    neg_pos_ub: at most so many negatives for each positive (no bound where negative).
    add_ground_truth: ground truths are put before the proposals as proposals of their own.
    """

    num: int = 256
    pos_fraction: float = 0.5
    neg_pos_ub: float = -1
    add_ground_truth: bool = False

    def __call__(self, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """Indices of the chosen positives and negatives, ascending."""
        positive = assignment.positive.nonzero()[:, 0]
        most = int(self.num * self.pos_fraction)
        if len(positive) > most:
            positive = random_choice(positive, most).sort().values
        negative = assignment.negative.nonzero()[:, 0]
        most = self.num - len(positive)
        if self.neg_pos_ub >= 0:
            most = min(most, int(self.neg_pos_ub * max(1, len(positive))))
        if len(negative) > most:
            negative = random_choice(negative, most).sort().values
        return positive, negative


@dataclass
class AllSampler:
    """Every positive and every negative."""

    add_ground_truth: bool = False

    def __call__(self, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """Indices of the positives and negatives, ascending."""
        return assignment.positive.nonzero()[:, 0], assignment.negative.nonzero()[:, 0]
