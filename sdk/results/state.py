"""Everything that a training goes on from; nothing but tensors, numbers and text is in it.

The newest state of a run folder is ``last.pt``, the ones before it are ``last.1.pt``, ``last.2.pt`` and so on. A state
that turns out to be damaged is moved to ``last.damaged.pt`` and the one before it is used.
"""

from __future__ import annotations

import itertools
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import RunError
from .files import replacing

TRAINING_STATE = "last.pt"


class DamagedState(RunError):
    """A training state that is there but cannot be used."""


def save_training_state(path: Path, state: dict[str, Any], keep: int = 1) -> None:
    """Writes everything that training goes on from, as one file, at once; the newest ``keep`` states stay.

    Raises RunError where it cannot be written; the states before are then still there.
    """
    with replacing(path, before=lambda: make_room(path, keep)) as file:
        sink = _Sink(file)
        try:
            torch.save(state, sink)  # type: ignore[arg-type]
        except RuntimeError:
            if sink.error is not None:
                raise sink.error from None
            raise


def load_training_state(path: Path) -> dict[str, Any]:
    """What ``save_training_state`` wrote; nothing but tensors and plain values is read.

    Raises DamagedState for a file that is cut off, changed or something else, RunError where it cannot be read at all.
    """
    try:
        # torch.load does not compare the checksums that stand in the file.
        with zipfile.ZipFile(path) as file:
            wrong = file.testzip()
        if wrong is not None:
            raise DamagedState(f"{path}: not a readable training state: the checksum of {wrong} differs")
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DamagedState:
        raise
    except Exception as error:  # What damaged bytes lead to can be any error.
        told = str(error).splitlines()[0] if isinstance(error, pickle.UnpicklingError) else error
        raise DamagedState(f"{path}: not a readable training state: {told}") from error


def kept_states(folder: Path) -> list[Path]:
    """The training states of a run folder, newest first."""
    newest = folder / TRAINING_STATE
    older = sorted(folder.glob("last.*.pt"), key=lambda path: path.suffixes[0].lstrip(".").zfill(9))
    paths = [newest, *(path for path in older if path.suffixes[0].lstrip(".").isdecimal())]
    return [path for path in paths if path.exists()]


def newest_whole_state(folder: Path, load: Callable[[Path], Any] = load_training_state) -> Path:
    """The newest state that ``load`` can read; damaged ones before it are set aside with a warning.

    Raises RunError where there is none; nothing is then moved.
    """
    damaged: list[tuple[Path, DamagedState]] = []
    for path in kept_states(folder):
        try:
            load(path)
        except DamagedState as error:
            damaged.append((path, error))
            continue
        for other, error in damaged:
            aside = _unused(folder)
            other.rename(aside)
            warnings.warn(
                f"{error}; it is now {aside.name}, and the training goes on from {path.name} before it",
                RuntimeWarning,
                stacklevel=2,
            )
        return path
    told = "; ".join(str(error) for _, error in damaged) or "there is no training state"
    raise RunError(f"{folder}: cannot be resumed: {told}")


def make_room(path: Path, keep: int) -> None:
    """Moves the states of the folder one number up, so that ``path`` is free; what is older than ``keep`` goes."""
    kept = kept_states(path.parent)
    for old in kept[max(keep - 1, 0) :]:
        # A file is replaced by the newer one, and never missing; a folder has to go first.
        if old.is_dir():
            shutil.rmtree(old)
        elif old != path:
            old.unlink()
    for number, old in reversed(list(enumerate(kept[: max(keep - 1, 0)], start=1))):
        old.rename(path.with_name(f"last.{number}.pt"))


def _unused(folder: Path) -> Path:
    names = itertools.chain(["last.damaged.pt"], (f"last.damaged{i}.pt" for i in itertools.count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


class _Sink:
    """A file as torch.save writes to it, which remembers why that failed: torch itself says something else."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None
        self.flush = file.flush

    def write(self, content: Any) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise
