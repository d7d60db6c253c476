"""Signals that ask a training to stop at its next step."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric

from ..reports.progress import say


def stopping_signals() -> tuple[int, ...]:
    """SIGINT, SIGTERM and, in a job of SLURM, the SIGUSR1 with which it announces that the job will be taken off
    (``#SBATCH --signal=USR1@120``)."""
    usual = (signal.SIGINT, signal.SIGTERM)
    return (*usual, signal.SIGUSR1) if "SLURM_JOB_ID" in os.environ and hasattr(signal, "SIGUSR1") else usual


class Interruption:
    """Turns a signal into a wish to stop at the next step; a second one stops at once."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
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
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def agreed(self, save: bool) -> tuple[bool, bool]:
        """(stop, save): whether any process was asked to stop, and whether any wants its state saved."""
        if self.fabric.world_size > 1:
            wish = torch.tensor([float(self.signal or 0), float(save)], device=self.fabric.device)
            largest = self.fabric.all_reduce(wish, reduce_op="max").tolist()  # type: ignore[union-attr]
            self.signal, save = int(largest[0]) or None, bool(largest[1])
        return self.signal is not None, save

    def leave(self, step: int) -> NoReturn:
        """Ends the training as the signal asks: KeyboardInterrupt for SIGINT, else the exit status 128 + signal."""
        if self.fabric.is_global_zero:
            say(f"stopped at step {step}; resume='auto' goes on from there")
        if self.signal in (None, signal.SIGINT):
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)
