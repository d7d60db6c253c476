"""What a dataset argument may be, in every verb: a path, ``kind:path``, a dataset, or a list of these."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .datasets.adapter import OnFault
from .datasets.base import DetectionDataset
from .datasets.combining import split as split_dataset
from .datasets.errors import DatasetError
from .datasets.mixing import mix
from .datasets.opening import open_path
from .errors import SdkError
from .reports.progress import say

VAL_SHARE, LEAST_DRAWN = 0.2, 5
"""Share of the images that a drawn validation split gets, and the fewest images that are split."""


def open_dataset(given: Any, *, split: str | None = None, on_fault: OnFault = "raise") -> Any:
    """The dataset that an argument stands for.

    Args:
        given: a folder or annotation file in any layout of an annotation tool; ``kind:path`` where it shows several
            (coco, yolo, voc, ...); ``shapes`` or ``shapes:1000``, drawn on the fly; a dataset; a list of these, or of
            pairs with their shares of an epoch, whose classes are matched by name.
        split: ``train``, ``val``, ``test`` or another that it has; without it a folder with several splits opens as
            its first one and carries the others as ``.train``, ``.val``, ``.test``.
        on_fault: what a broken annotation does: ``raise``, ``skip`` or ``repair``.

    Raises:
        SdkError: when it is something else, says what was given, and what may be.
        DatasetError: when its layout is not recognized, or an annotation is broken.
    """
    if isinstance(given, (str, os.PathLike)):
        return _opened(str(given), split, on_fault)
    if isinstance(given, (list, tuple)):
        return _mixed(given, split, on_fault)
    if is_dataset(given) or carries_splits(given):
        return given if split is None else scored_split(given, split)
    raise SdkError(f"dataset: expected a path, a dataset or a list of these, found {what_is(given)}")


def is_dataset(given: Any) -> bool:
    """Whether this is a dataset: it has classes, a length, and gives samples."""
    return all(hasattr(given, name) for name in ("classes", "__len__", "__getitem__")) and not isinstance(given, type)


def what_is(given: Any) -> str:
    """A value in words, for error texts."""
    if isinstance(given, type):
        return f"the class {given.__name__}; make an object of it: {given.__name__}(...)"
    if hasattr(given, "predict") or type(given).__name__ in ("Run", "Trained"):
        return f"a model ({type(given).__name__}); the dataset comes first, the model second"
    if isinstance(given, Iterator):
        return f"a {type(given).__name__}, which can be gone through once; give a list"
    return f"{given!r:.80} ({type(given).__name__})"


def _opened(text: str, split: str | None, on_fault: OnFault) -> Any:
    if "://" in text:
        raise SdkError(f"{text}: is an address; download it first and give the path of the folder")
    try:
        found = open_path(text, split=split, on_fault=on_fault)
    except DatasetError as error:
        if not error.problem.startswith(("no such folder", "has no layout", "not a number of images")):
            raise
        raise SdkError(str(error)) from error
    if split is None and type(found).__name__ == "Voc" and not carries_splits(found):
        return drawn_splits(found)
    return found


class DrawnSplits:
    """A dataset without lists of its own, split by a seed; ``train`` and ``val`` are its parts."""

    def __init__(self, whole: DetectionDataset, parts: dict[str, Any]) -> None:
        self.whole, self.train, self.val, self.test = whole, parts["train"], parts["val"], None
        self.classes, self.category_ids, self.fingerprint = whole.classes, whole.category_ids, whole.fingerprint

    def __len__(self) -> int:
        return len(self.whole)

    def __repr__(self) -> str:
        return f"DrawnSplits({self.whole!r}, train {len(self.train)}, val {len(self.val)})"


def drawn_splits(dataset: DetectionDataset, seed: int = 0) -> Any:
    """The dataset with a training and a validation split drawn by ``seed``, said aloud; whole where it is too small."""
    if len(dataset) < LEAST_DRAWN:
        return dataset
    parts = split_dataset(dataset, {"train": 1 - VAL_SHARE, "val": VAL_SHARE}, seed=seed)
    say(
        f"no lists of splits: {len(parts['train'])} images are drawn for training and {len(parts['val'])} for "
        f"validation (seed {seed})"
    )
    return DrawnSplits(dataset, parts)


class MixedSplits:
    """The splits of several datasets, mixed one by one."""

    def __init__(self, train: Any, val: Any, test: Any) -> None:
        self.train, self.val, self.test = train, val, test
        self.classes, self.category_ids, self.fingerprint = train.classes, train.category_ids, train.fingerprint


def _mixed(given: list | tuple, split: str | None, on_fault: OnFault) -> Any:
    """Several datasets as one, split by split."""
    pairs = [one if _is_pair(one) else (one, None) for one in given]
    opened = [(open_dataset(one, split=split, on_fault=on_fault), share) for one, share in pairs]
    if not opened:
        raise SdkError("dataset: an empty list")
    if not any(carries_splits(one) for one, _ in opened):
        return mix([one if share is None else (one, share) for one, share in opened])

    learnt = [(one.train if carries_splits(one) else one, share) for one, share in opened]
    whole = mix([one if share is None else (one, share) for one, share in learnt])
    others = {
        name: mix(found)
        for name in ("val", "test")
        if (found := [s for one, _ in opened if carries_splits(one) and (s := getattr(one, name, None)) is not None])
    }
    return MixedSplits(whole, others.get("val"), others.get("test"))


def _is_pair(one: Any) -> bool:
    return (
        isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], (int, float)) and not isinstance(one[1], bool)
    )


def carries_splits(dataset: Any) -> bool:
    """Whether this is a dataset as a whole, opened on a folder with several splits, and not one of its splits."""
    train = getattr(dataset, "train", None)
    # A model has a method of that name.
    return train is not None and not callable(train) and (train is dataset or not hasattr(dataset, "__getitem__"))


def scored_split(
    dataset: Any, split: str | None = None, on_fault: OnFault = "raise", *, drawn: bool = True
) -> DetectionDataset:
    """The split that is asked for; else ``val`` of a dataset that carries splits, said aloud; else the dataset itself.

    dataset: as of ``open_dataset``. drawn: take a validation split that was drawn; without it the whole dataset, as for
    predictions that somebody else made.

    Raises:
        SdkError: when the dataset has no such split.
    """
    dataset = open_dataset(dataset, on_fault=on_fault)
    if isinstance(dataset, DrawnSplits) and split is None and not drawn:
        return dataset.whole
    if split is not None:
        chosen = getattr(dataset, split, None)
        if chosen is None:
            has = [name for name in ("train", "val", "test") if getattr(dataset, name, None) is not None]
            raise SdkError(
                f"the dataset has no split {split!r}; expected {' or '.join(has) or 'none, it has no splits'}"
            )
        return chosen
    if not carries_splits(dataset) or getattr(dataset, "val", None) is None:
        whole: Any = getattr(dataset, "whole", dataset)
        return whole
    val: DetectionDataset = dataset.val  # pyright: ignore[reportAttributeAccessIssue]
    say(f"of the dataset's splits, val is taken ({len(val)} images)")
    return val


def training_splits(
    dataset: Any, validation: Any = None, on_fault: OnFault = "raise"
) -> tuple[DetectionDataset, DetectionDataset | None]:
    """What is learnt from and what is scored: ``train`` and ``val`` of a dataset that carries splits.

    dataset, validation: as of ``open_dataset``.
    """
    dataset = open_dataset(dataset, on_fault=on_fault)
    if validation is not None:
        validation = open_dataset(validation, on_fault=on_fault)
        validation = validation.val if carries_splits(validation) and validation.val is not None else validation
    if not carries_splits(dataset):
        return dataset, validation
    return dataset.train, dataset.val if validation is None else validation
