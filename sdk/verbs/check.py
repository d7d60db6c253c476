"""Looking for faults in a dataset before anything is trained on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.checking import CheckReport, Mode
from ..datasets.checking import check as find_faults
from ..opening import open_dataset
from ..reports.progress import say

if TYPE_CHECKING:
    from ..datasets.sampling import Sampler

PAGE = "check.html"


def check(
    dataset: Any,
    *,
    mode: Mode = "report",
    decode: bool = False,
    leaks: bool = False,
    out: str | os.PathLike | None = None,
    sampler: str | Mapping[str, float] | Sampler | None = None,
) -> CheckReport:
    """Reports every fault with its file, annotation and field, and counts objects by class and size.

    Nothing on disk is changed.

    Args:
        dataset: a path or a dataset, as of ``sdk.open``; of several splits the others are looked through for the same
            images.
        mode: ``report``; ``raise`` the first error; ``skip`` or ``repair`` for a dataset without the faults, in memory
            (``report.dataset``).
        decode: also decode every image.
        leaks: also look for near duplicates within and between splits (encoded again, resized, cropped by up to 10 %,
            mirrored, of another brightness, frames of a video), for one picture with different labels, and for equal
            boxes of two classes; the pairs are ``report.leaks``. Needs ``imagehash``.
        out: folder for ``check.html`` and for pictures of the pairs, both images side by side with what is annotated.
        sampler: also say how often each class is seen with this sampler, wanted and realized; named as ``sampling`` of
            ``sdk.fit``.

    Raises:
        DatasetError: with ``mode="raise"``.
    """
    dataset = open_dataset(dataset, on_fault="skip")
    report = find_faults(dataset, mode=mode, decode=decode, leaks=leaks)
    if out is not None:
        from ..reports.checking import check_page
        from ..reports.page import Picture, write_page
        from ..reports.pictures import draw_pairs

        splits = getattr(dataset, "splits", None) or {}
        drawn = draw_pairs(report.leaks, splits if len(splits) > 1 else {"all": dataset}, Path(out))
        if report.leaks:
            say(f"{len(drawn)} of {len(report.leaks)} pairs of the same picture are drawn in {Path(out)}")
        pairs = [Picture.of_file(path.stem, path) for path in drawn]
        say(f"the page is {write_page(check_page(report, f'Check of {dataset!r}', pairs), Path(out) / PAGE)}")
    if sampler is not None:
        from ..datasets.sampling import Repeated, exposure, sampler_of

        say(str(exposure(dataset, sampler_of(sampler) or Repeated(1))))
    return report
