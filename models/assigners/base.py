"""What an assigner decides.

Shape letters: P priors, N ground truths of one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND = -1
IGNORED = -2


@dataclass(frozen=True)
class Assignment:
    """Which ground truth each prior of one image is responsible for.

    matched: (P,) int64, index of the ground truth, ``BACKGROUND`` or ``IGNORED``.
    overlaps: (P,) the overlap with the best ground truth, by the assigner's own measure.
    """

    matched: Tensor
    overlaps: Tensor

    @property
    def positive(self) -> Tensor:
        """(P,) bool: the prior is responsible for an object."""
        return self.matched >= 0

    @property
    def negative(self) -> Tensor:
        """(P,) bool: the prior is background."""
        return self.matched == BACKGROUND

    def with_ground_truth(self, count: int) -> Assignment:
        """The assignment of the ``count`` ground truths themselves, as priors put first, and these priors."""
        own = torch.arange(count, device=self.matched.device)
        return Assignment(torch.cat((own, self.matched)), torch.cat((self.overlaps.new_ones(count), self.overlaps)))
