"""Signals that ask a training to stop at its next step."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from typing import Any, NamedTuple, NoReturn

import torch
from lightning_fabric import Fabric

from ..reports.progress import say


def stopping_signals() -> tuple[int, ...]:
    """SIGINT, SIGTERM and, in a job of SLURM, the SIGUSR1 with which it announces that the job will be taken off
    (``#SBATCH --signal=USR1@120``)."""
    usual = (signal.SIGINT, signal.SIGTERM)
    return (*usual, signal.SIGUSR1) if "SLURM_JOB_ID" in os.environ and hasattr(signal, "SIGUSR1") else usual


class Agreed(NamedTuple):
    """What all processes do after a step. stop: leave, to be resumed. save: write the state. end: be done with
    training, as after its last step."""

    stop: bool
    save: bool
    end: bool


class Clock:
    """Says when so many minutes have passed since it was made; without a number, never."""

    def __init__(self, minutes: float | None) -> None:
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def is_up(self) -> bool:
        return time.monotonic() >= self.end


class Interruption:
    """Turns a signal into a wish to stop at the next step; a second one stops at once.

    In a notebook Ctrl-C, its stop button, ends the training instead, so that the run is returned.
    """

    def __init__(self, fabric: Fabric, in_notebook: bool = False) -> None:
        self.fabric, self.in_notebook, self.ended = fabric, in_notebook, False
        self.signal: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in stopping_signals():
                self.previous[number] = signal.signal(number, self._wish)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _wish(self, number: int, frame: object) -> None:
        if self.signal is not None or self.ended:
            raise KeyboardInterrupt
        if self.in_notebook and number == signal.SIGINT:
            self.ended = True
        else:
            self.signal = number

    def agreed(self, save: bool, end: bool = False) -> Agreed:
        """What any process wants: that its state is saved, or that training ends; or was asked for by a signal."""
        end = end or self.ended
        if self.fabric.world_size > 1:
            wish = torch.tensor([float(self.signal or 0), float(save), float(end)], device=self.fabric.device)
            largest = self.fabric.all_reduce(wish, reduce_op="max").tolist()  # type: ignore[union-attr]
            self.signal, save, end = int(largest[0]) or None, bool(largest[1]), bool(largest[2])
        return Agreed(self.signal is not None, save, end)

    def leave(self, step: int) -> NoReturn:
        """Ends the training as the signal asks: KeyboardInterrupt for SIGINT, else the exit status 128 + signal."""
        if self.fabric.is_global_zero:
            say(f"stopped at step {step}; resume='auto' goes on from there")
        if self.signal in (None, signal.SIGINT):
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)
