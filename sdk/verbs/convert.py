"""A dataset in another layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..datasets.adapter import OnFault
from ..datasets.writing import save
from ..opening import DrawnSplits, open_dataset
from ..reports.progress import say


def convert(source: Any, target: str | os.PathLike, *, to: str = "coco", on_fault: OnFault = "raise") -> Path:
    """Writes a dataset, with all its splits and images, in another layout.

    What the layout cannot hold is said before anything is written.

    Args:
        source: a path or a dataset, as of ``sdk.open``.
        target: a new or empty folder.
        to: ``coco`` (keeps everything), ``voc``, ``yolo`` or ``parquet``.
        on_fault: ``raise``, ``skip`` or ``repair`` broken annotations.

    Raises:
        DatasetError: when the folder holds something, or the layout is unknown.
    """
    dataset = open_dataset(source, on_fault=on_fault)
    if isinstance(dataset, DrawnSplits):
        dataset = dataset.whole
    written = save(dataset, target, to, tell=lambda lost: say(f"not kept: {lost}"))
    say(f"{written}: written as {to}")
    return written
