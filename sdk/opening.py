"""What a dataset argument may be: text to a dataset, and of several splits the one that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import datasets
from .datasets.adapter import OnFault
from .datasets.base import DetectionDataset
from .errors import SdkError
from .reports.progress import say

KINDS = ("coco", "lvis", "voc", "cityscapes", "wider_face", "deepfashion", "shapes")


def open_dataset(text: str, on_fault: OnFault = "raise") -> Any:
    """The dataset that ``kind:folder`` or a folder of a known layout stands for; ``shapes`` needs no folder.

    on_fault: what a broken annotation does: ``raise``, ``skip`` or ``repair``.

    Raises:
        SdkError: when the kind is unknown, the folder is missing, or its layout is not recognized.
    """
    kind, colon, place = text.partition(":")
    if text == "shapes" or (colon and kind == "shapes"):
        return datasets.Shapes(int(place)) if place else datasets.Shapes()
    if colon and kind in KINDS:
        folder = Path(place)
    else:
        kind, folder = "", Path(text)
    if not folder.is_dir():
        raise SdkError(f"{text}: no such folder; expected a folder, or one of {', '.join(KINDS)} with ':folder'")
    return _opened(kind or recognized(folder), folder, on_fault)


def _opened(kind: str, folder: Path, on_fault: OnFault) -> Any:
    if kind == "coco":
        return datasets.Coco(folder, on_fault=on_fault)
    if kind == "lvis":
        return datasets.Lvis(folder, on_fault=on_fault)
    if kind == "voc":
        return datasets.Voc(folder, on_fault=on_fault)
    if kind == "cityscapes":
        return datasets.Cityscapes(folder, on_fault=on_fault)
    if kind == "wider_face":
        return datasets.WiderFace(folder, on_fault=on_fault)
    return datasets.DeepFashion(folder, on_fault=on_fault)


def recognized(folder: Path) -> str:
    """The kind of dataset that a folder's layout shows.

    Raises:
        SdkError: when it shows none, or more than one.
    """
    signs = {
        "voc": ("Annotations/*.xml", "VOC*/Annotations", "VOCdevkit/VOC*"),
        "cityscapes": ("gtFine",),
        "wider_face": ("wider_face_split", "WIDER_*"),
        "lvis": ("lvis_v*.json", "annotations/lvis_v*.json"),
        "deepfashion": ("**/DeepFashion_segmentation*.json",),
        "coco": ("annotations/*.json", "*instances*.json", "_annotations.coco.json", "*/_annotations.coco.json"),
    }
    found = [kind for kind, patterns in signs.items() if any(any(folder.glob(pattern)) for pattern in patterns)]
    if "lvis" in found or "deepfashion" in found:
        found = [kind for kind in found if kind != "coco"]
    if len(found) == 1:
        return found[0]
    what = f"looks like {' and '.join(found)}" if found else "has no layout that is known here"
    raise SdkError(f"{folder}: {what}; say which with one of {', '.join(KINDS)} before a colon, such as coco:{folder}")


def carries_splits(dataset: Any) -> bool:
    """Whether this is a dataset as a whole, opened on a folder with several splits, and not one of its splits."""
    train = getattr(dataset, "train", None)
    return train is not None and (train is dataset or not hasattr(dataset, "__getitem__"))


def scored_split(dataset: Any, split: str | None = None) -> DetectionDataset:
    """The split that is asked for; else ``val`` of a dataset that carries splits, said aloud; else the dataset itself.

    Raises:
        SdkError: when the dataset has no such split.
    """
    if split is not None:
        chosen = getattr(dataset, split, None)
        if chosen is None:
            has = [name for name in ("train", "val", "test") if getattr(dataset, name, None) is not None]
            raise SdkError(
                f"the dataset has no split {split!r}; expected {' or '.join(has) or 'none, it has no splits'}"
            )
        return chosen
    if not carries_splits(dataset) or getattr(dataset, "val", None) is None:
        return dataset
    say(f"of the dataset's splits, val is taken ({len(dataset.val)} images)")
    return dataset.val


def training_splits(
    dataset: Any, validation: DetectionDataset | None
) -> tuple[DetectionDataset, DetectionDataset | None]:
    """What is learnt from and what is scored: ``train`` and ``val`` of a dataset that carries splits."""
    if not carries_splits(dataset):
        return dataset, validation
    return dataset.train, dataset.val if validation is None else validation
