"""What each class is going to be shown in an epoch, and was shown: said before training, kept with the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.leaks import equal_files
from ..datasets.sampling import Exposure, Product, Repeated, Sampler, exposure, image_classes
from ..errors import RunError
from ..reports.progress import say

EXPOSURE = "exposure.json"
FEW = 20
"""Classes that are named one by one; of more only the rarest are."""


def expected_exposure(train: DetectionDataset, samplers: Sequence[Sampler], seed: int) -> Exposure:
    """The exposure of an epoch with these samplers, by a draw of ten epochs."""
    return exposure(train, Product((Repeated(1), *samplers)), seed=seed)


def tell_balance(train: DetectionDataset, scored_on: DetectionDataset | None, planned: Exposure) -> None:
    """Says by class the images, the objects, and the showings in an epoch before and after sampling.

    Also which classes stay below the mean and cannot be raised, and which occur in one split only.
    """
    rows = np.argsort(planned.images, kind="stable")
    shown = rows[:FEW]
    width = max(len(planned.classes[row]) for row in shown)
    say(f"{'class':<{width}}  images  objects  showings an epoch, before and with sampling")
    for row in shown:
        say(
            f"{planned.classes[row]:<{width}}  {planned.images[row]:>6,}  {planned.objects[row]:>7,}  "
            f"{planned.images[row]:>9,} -> {planned.target[row]:,.1f}"
        )
    if len(rows) > FEW:
        say(f"and {len(rows) - FEW} more frequent classes")
    say(f"an epoch has {planned.length:,.0f} images, the dataset {len(train):,}")
    none = [planned.classes[row] for row in rows if planned.images[row] == 0]
    if len(none) == len(rows):
        say("the training set has no object that counts: the detector will learn to find nothing")
    elif none:
        say(f"without any object, and so not learnt: {listed(none)}")
    if scored_on is not None:
        tell_one_sided(train, scored_on)


def tell_one_sided(train: DetectionDataset, scored_on: DetectionDataset) -> None:
    """Says which classes occur in one of two splits only."""
    classes = len(train.classes)
    here, there = (np.bincount(image_classes(part).values, minlength=classes) > 0 for part in (train, scored_on))
    for label, where in ((here & ~there, "training set"), (there & ~here, "validation set")):
        if label.any():
            say(f"only in the {where}: {listed([str(train.classes[i]) for i in np.flatnonzero(label).tolist()])}")


def leaked(train: DetectionDataset, scored_on: DetectionDataset | None, leaks: str) -> str | None:
    """What to warn of where images are equal byte for byte in training and validation.

    Raises:
        RunError: with ``leaks="raise"``, where there are any.
    """
    if leaks not in ("warn", "raise", "ignore"):
        raise ValueError(f"leaks: expected 'warn', 'raise' or 'ignore', found {leaks!r}")
    if leaks == "ignore" or scored_on is None:
        return None
    pairs = equal_files({"train": train, "val": scored_on})
    if not pairs:
        return None
    told = (
        f"{len({pair.second.index for pair in pairs})} of {len(scored_on)} images of validation are also learnt from, "
        f"such as {pairs[0].second}, which is {pairs[0].first}: scores will be too good"
    )
    if leaks == "raise":
        raise RunError(f"{told}; leaks='warn' goes on")
    return f"warning: {told}"


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def realized_exposure(train: DetectionDataset, orders: Sequence[np.ndarray]) -> dict[str, Any]:
    """By class, the showings an epoch over the (E,) orders of the epochs that were trained."""
    shown = image_classes(train)
    rows = np.repeat(np.arange(len(shown)), np.diff(shown.offsets))
    times = sum((np.bincount(order, minlength=len(train)) for order in orders), np.zeros(len(train), np.int64))
    counts = np.bincount(shown.values, times[rows], minlength=len(train.classes)) / max(len(orders), 1)
    return {"epochs": len(orders), "showings": dict(zip(map(str, train.classes), np.round(counts, 3).tolist()))}
