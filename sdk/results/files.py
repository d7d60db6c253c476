"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ..errors import RunError


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file at once."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file at once: after a crash the old or the new content is there, never a part of either."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, before: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` at once, when all of it is on the disk.

    before: what is done between the two, such as moving the old file out of the way. Raises RunError naming ``path``
    where it cannot be written; what was there before is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with named_errors(path):
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            before()
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turns what the system says on writing ``path`` into a RunError that names it, and how much room there is."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 1e6 if path.parent.is_dir() else 0
        raise RunError(f"{path}: cannot be written: {error.strerror or error} ({free:.0f} MB free there)") from error


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk: without it a rename may be lost when the machine stops."""
    if os.name == "nt":  # Folders cannot be opened there.
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed while writing has left in a folder."""
    for path in folder.glob(".*.*"):
        if re.fullmatch(r"\..+\.\d+", path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
