"""Every error that the verbs raise on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher, get_close_matches

from .datasets.errors import DatasetError

__all__ = ["ClassMismatch", "DatasetError", "NonFiniteLoss", "RunError", "SdkError"]


class SdkError(ValueError):
    """Something that was asked for cannot be done; the text says what was found and what was expected."""


class RunError(SdkError):
    """A run folder, a checkpoint or a predictions file is missing, incomplete, or belongs to something else."""


class NonFiniteLoss(SdkError, ArithmeticError):
    """A loss term became NaN or infinite: names the step, the terms and the images of the batch."""


class ClassMismatch(SdkError):
    """The classes of a model and of a dataset differ."""


def require_same_classes(model_classes: Sequence[str] | None, count: int, dataset_classes: Sequence[str]) -> None:
    """Nothing where label i means the same class on both sides, else ClassMismatch that says what differs.

    Args:
        model_classes: names in label order, or none where the model only knows how many it has.
        count: class count of the model.
        dataset_classes: names in label order.
    """
    theirs = list(dataset_classes)
    if model_classes is None:
        if count != len(theirs):
            raise ClassMismatch(
                f"the model has {count} classes, the dataset {len(theirs)} ({_listed(theirs)}); "
                "make the model with models.create(name, num_classes=dataset)"
            )
        return
    ours = list(model_classes)
    if ours == theirs:
        return
    only_model = [name for name in ours if name not in theirs]
    only_dataset = [name for name in theirs if name not in ours]
    text = f"the model's {len(ours)} classes and the dataset's {len(theirs)} classes differ"
    if only_model:
        text += f"; only the model has {_listed(only_model)}"
    if only_dataset:
        text += f"; only the dataset has {_listed(only_dataset)}"
    if not only_model and not only_dataset:
        moved = [f"{name!r} is label {ours.index(name)} of the model and {i} of the dataset"
                 for i, name in enumerate(theirs) if ours[i] != name]  # fmt: skip
        text += f"; the names are the same but their order is not: {'; '.join(moved[:5])}"
    elif not only_dataset:
        text += "; the dataset's classes are a subset of the model's: open the dataset with all of the model's classes"
    elif not only_model:
        text += (
            "; the model's classes are a subset of the dataset's: open the dataset with classes=[...] in the "
            "model's order, or make a model for the whole dataset"
        )
    raise ClassMismatch(text)


def _listed(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def require_count(name: str, value: object, least: int = 1) -> None:
    """Raises ValueError where a number that counts something is no whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, found {value!r}")


def nearest(found: object, names: Sequence[str]) -> str:
    """A hint at the name that was probably meant, or nothing; of equally near ones the first."""
    near = get_close_matches(str(found), names, 3)
    if not near:
        return ""
    best = [name for name in names if name in near and _likeness(found, name) == _likeness(found, near[0])]
    return f" (did you mean {best[0]}?)"


def _likeness(found: object, name: str) -> float:
    return SequenceMatcher(None, name, str(found)).ratio()
