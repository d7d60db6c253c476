"""Figures of steps, read when the device has them instead of waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inference.batching import Batch

MOST_UNREAD = 4
"""Steps whose figures are not read yet, at most: their batches are kept for the case that one was not finite."""


class Readout:
    """Numbers on their way from the device to this process."""

    def __init__(self, values: Tensor) -> None:
        """values: 1-d; on a GPU they are copied once it has come so far."""
        self.event = None
        if values.is_cuda:
            self.values = torch.empty_like(values, device="cpu", pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()
        else:
            self.values = values

    def ready(self) -> bool:
        """Whether reading would not have to wait."""
        return self.event is None or self.event.query()

    def read(self) -> list[float]:
        """The numbers; waits for the device where it must."""
        if self.event is not None:
            self.event.synchronize()
        return self.values.tolist()


@dataclass(frozen=True)
class LossTerms:
    """What one batch gave, on the device.

    means: (1 + number of terms,), the sum and then every term, of all processes. own: the same of this one.
    """

    batch: Batch
    names: tuple[str, ...]
    means: Tensor
    own: Tensor


@dataclass(frozen=True)
class StepFigures:
    """The figures of a step that is done: ``step`` counts from 1."""

    step: int
    epoch: int
    lr: float
    losses: dict[str, float]


class UnreadStep:
    """A step that was given to the device. step: counted from 0. parts: its batches."""

    def __init__(self, step: int, epoch: int, lr: float, parts: Sequence[LossTerms], norm: Tensor) -> None:
        self.step, self.epoch, self.lr = step, epoch, lr
        self.batches, self.names = [part.batch for part in parts], [part.names for part in parts]
        values = [norm.float()[None], *(value for part in parts for value in (part.means, part.own))]
        self.readout = Readout(torch.cat(values))

    def read(self) -> tuple[float, list[tuple[list[float], list[float]]]]:
        """The norm of the gradient, and for each batch the means over all processes and this one's own values."""
        numbers = iter(self.readout.read())
        norm = next(numbers)
        sizes = [1 + len(names) for names in self.names]
        return norm, [([next(numbers) for _ in range(n)], [next(numbers) for _ in range(n)]) for n in sizes]
