"""What two versions of a dataset's annotations say differently."""

from __future__ import annotations

import os
from typing import Any

from ..insight.difference import Difference, difference
from ..opening import open_dataset


def diff(first: Any, second: Any, *, split: str | None = None, out: str | os.PathLike | None = None) -> Difference:
    """Compares two versions of the annotations of the same images: what was added, removed, moved, relabelled.

    Args:
        first, second: paths or datasets, as of ``sdk.open``, the earlier version first.
        split: ``train``, ``val`` or ``test`` of both; by default each as it was opened.
        out: file for the changes that make the second of the first, for ``dataset.amended``.

    Raises:
        SdkError: when ``out`` is asked for and images or classes differ, so that changes cannot express it.
        FileExistsError: when ``out`` is there.
    """
    found = difference(open_dataset(first, split=split), open_dataset(second, split=split))
    if out is not None:
        found.amendments().save(out)
    return found
