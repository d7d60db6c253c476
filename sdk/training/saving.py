"""When and how a training writes down what it goes on from."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from ..results.state import TRAINING_STATE, save_training_state

LARGE_BYTES = 64 * 2**20
"""From here on a state is written beside the training instead of holding it up."""


class StateWriter:
    """Writes training states into a run folder: large ones in a thread, on a copy, while training goes on."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.path, self.keep = folder / TRAINING_STATE, keep
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="training-state")
        self.pending: Future[None] | None = None
        self.last = time.monotonic()

    def minutes_since(self) -> float:
        """Minutes since the last state was written."""
        return (time.monotonic() - self.last) / 60

    def write(self, state: dict[str, Any]) -> None:
        """Writes a state, or begins to. Raises RunError for what went wrong with this or the one before."""
        self.finish()
        if size_of(state) < LARGE_BYTES:
            save_training_state(self.path, state, self.keep)
        else:
            self.pending = self.thread.submit(save_training_state, self.path, copied(state), self.keep)
        self.last = time.monotonic()

    def finish(self) -> None:
        """Waits until everything is on the disk. Raises RunError where it could not be written."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()


def size_of(state: Any) -> int:
    """Bytes of the tensors in nested dicts and lists."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    items = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(size_of(item) for item in items)


def copied(state: Any) -> Any:
    """Nested dicts and lists with every tensor copied to main memory."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copied(item) for key, item in state.items()}
    return type(state)(copied(item) for item in state) if isinstance(state, (list, tuple)) else state
