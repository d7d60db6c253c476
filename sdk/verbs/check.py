"""Looking for faults in a dataset before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..datasets.base import DetectionDataset
from ..datasets.checking import CheckReport, Mode
from ..datasets.checking import check as find_faults
from ..reports.progress import say

if TYPE_CHECKING:
    from ..datasets.sampling import Sampler


def check(
    dataset: DetectionDataset,
    *,
    mode: Mode = "report",
    decode: bool = False,
    sampler: str | Mapping[str, float] | Sampler | None = None,
) -> CheckReport:
    """Reports every fault with its file, annotation and field, and counts objects by class and size.

    Nothing on disk is changed.

    Args:
        dataset: any DetectionDataset; of several splits the others are looked through for the same images.
        mode: ``report``; ``raise`` the first error; ``skip`` or ``repair`` for a dataset without the faults, in memory
            (``report.dataset``).
        decode: also decode every image.
        sampler: also say how often each class is seen with this sampler, wanted and realized; named as ``sampling`` of
            ``sdk.fit``.

    Raises:
        DatasetError: with ``mode="raise"``.
    """
    report = find_faults(dataset, mode=mode, decode=decode)
    if sampler is not None:
        from ..datasets.sampling import Repeated, exposure, sampler_of

        say(str(exposure(dataset, sampler_of(sampler) or Repeated(1))))
    return report
