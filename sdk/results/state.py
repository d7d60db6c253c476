"""Everything that a training goes on from, in one file; nothing but tensors, numbers and text is in it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError
from .files import write_bytes

TRAINING_STATE = "last.pt"


def save_training_state(path: Path, state: dict[str, Any]) -> None:
    """Writes everything that training goes on from, as one file, at once."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_training_state(path: Path) -> dict[str, Any]:
    """What ``save_training_state`` wrote; nothing but tensors and plain values is read."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise RunError(f"{path}: not a readable training state: {error}") from error
