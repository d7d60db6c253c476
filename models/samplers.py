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


def ranks_in_groups(values: Tensor, groups: Tensor) -> Tensor:
    """(N,) int64 rank of each of (N,) values among those of its group, the largest first from 0."""
    order = values.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    sizes = groups.unique(return_counts=True)[1]
    places = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.empty_like(order).scatter(0, order, places)


def evenly_drawn(candidates: Tensor, groups: Tensor, per_group: int, count: int) -> Tensor:
    """``count`` of the (N,) candidates: at random ``per_group`` of each group, then of the rest, or of these, as many
    as are missing or too many. groups: (N,) the group of each candidate."""
    first = ranks_in_groups(torch.rand(len(candidates), device=candidates.device), groups) < per_group
    drawn = candidates[first]
    if len(drawn) >= count:
        return random_choice(drawn, count)
    return torch.cat((drawn, random_choice(candidates[~first], count - len(drawn))))


@dataclass
class BalancedSampler:
    """Positives spread evenly over the objects, negatives over the overlaps (Pang et al., "Libra R-CNN", section 3.1).

    At most ``num`` priors, of which at most ``pos_fraction`` are positive. bins: intervals of the overlap, from which
    an equal number of negatives is drawn. neg_pos_ub and add_ground_truth: as of ``RandomSampler``.
    """

    num: int = 512
    pos_fraction: float = 0.25
    neg_pos_ub: float = -1
    add_ground_truth: bool = True
    bins: int = 3

    def __call__(self, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """Indices of the chosen positives and negatives, ascending."""
        positive = assignment.positive.nonzero()[:, 0]
        most = int(self.num * self.pos_fraction)
        if len(positive) > most:
            objects = assignment.matched[positive]
            per_object = round(most / len(objects.unique())) + 1
            positive = evenly_drawn(positive, objects, per_object, most).sort().values
        negative = assignment.negative.nonzero()[:, 0]
        most = self.num - len(positive)
        if self.neg_pos_ub >= 0:
            most = min(most, int(self.neg_pos_ub * max(1, len(positive))))
        if len(negative) > most:
            # The published intervals divide -1 to the best overlap of all priors: the lowest is always empty, and what
            # would come from it is drawn from all of the others.
            width = (assignment.overlaps.max() + 1) / self.bins
            interval = ((assignment.overlaps[negative] + 1) / width).floor()
            negative = evenly_drawn(negative, interval, most // self.bins, most).sort().values
        return positive, negative


@dataclass
class OHEMSampler:
    """The priors of the highest loss (Shrivastava et al., "Training Region-based Object Detectors with Online Hard
    Example Mining", section 4): at most ``num``, of which at most ``pos_fraction`` are positive.

    neg_pos_ub and add_ground_truth: as of ``RandomSampler``.
    """

    num: int = 512
    pos_fraction: float = 0.25
    neg_pos_ub: float = -1
    add_ground_truth: bool = True

    def __call__(self, assignment: Assignment, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the chosen positives and negatives, the worst first, by the (P,) losses of all priors."""
        positive = hardest(assignment.positive.nonzero()[:, 0], losses, int(self.num * self.pos_fraction))
        most = self.num - len(positive)
        if self.neg_pos_ub >= 0:
            most = min(most, int(self.neg_pos_ub * max(1, len(positive))))
        return positive, hardest(assignment.negative.nonzero()[:, 0], losses, most)


def hardest(candidates: Tensor, losses: Tensor, count: int) -> Tensor:
    """At most ``count`` of (N,) indices into (P,) losses: those of the highest, in falling order."""
    return candidates[losses[candidates].topk(min(count, len(candidates))).indices]
