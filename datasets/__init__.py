"""Datasets: adapters, sampling, transforms, checks. Knows nothing of models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..fiftyone.converting import from_fiftyone, to_fiftyone
    from .base import DetectionDataset, ImageInfo
    from .cityscapes import Cityscapes
    from .coco import Coco
    from .combining import concat, repeat, split, subset
    from .deepfashion import DeepFashion
    from .errors import DatasetError, DatasetWarning
    from .ignore_lists import ignoring
    from .loader import Loader
    from .lvis import Lvis
    from .sample import Sample
    from .sampling import ClassBalanced, OnlyWithObjects, Repeated, RepeatFactor
    from .shapes import Shapes
    from .transforms import Preprocessing
    from .voc import Voc
    from .wider_face import WiderFace

# Where each name is defined; modules are imported when a name is first used, so that `import sdk` stays quick.
_HOMES = {
    "Cityscapes": "cityscapes",
    "ClassBalanced": "sampling",
    "Coco": "coco",
    "DatasetError": "errors",
    "DatasetWarning": "errors",
    "DeepFashion": "deepfashion",
    "DetectionDataset": "base",
    "ImageInfo": "base",
    "Loader": "loader",
    "Lvis": "lvis",
    "OnlyWithObjects": "sampling",
    "Preprocessing": "transforms",
    "RepeatFactor": "sampling",
    "Repeated": "sampling",
    "Sample": "sample",
    "Shapes": "shapes",
    "Voc": "voc",
    "WiderFace": "wider_face",
    "concat": "combining",
    # FiftyOne is imported by these alone.
    "from_fiftyone": ".fiftyone.converting",
    "ignoring": "ignore_lists",
    "repeat": "combining",
    "split": "combining",
    "subset": "combining",
    "to_fiftyone": ".fiftyone.converting",
}

__all__ = [
    "Cityscapes",
    "ClassBalanced",
    "Coco",
    "DatasetError",
    "DatasetWarning",
    "DeepFashion",
    "DetectionDataset",
    "ImageInfo",
    "Loader",
    "Lvis",
    "OnlyWithObjects",
    "Preprocessing",
    "RepeatFactor",
    "Repeated",
    "Sample",
    "Shapes",
    "Voc",
    "WiderFace",
    "concat",
    "from_fiftyone",
    "ignoring",
    "repeat",
    "split",
    "subset",
    "to_fiftyone",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
