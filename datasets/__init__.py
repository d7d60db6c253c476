"""Datasets: adapters, sampling, transforms, checks. Knows nothing of models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .annotation_tools import Cvat, LabelMe, Via
    from .base import DetectionDataset, ImageInfo
    from .cityscapes import Cityscapes
    from .coco import Coco
    from .combining import amended, concat, repeat, split, subset
    from .deepfashion import DeepFashion
    from .errors import DatasetError, DatasetWarning
    from .ignore_lists import ignoring
    from .kitti import Kitti
    from .loader import Loader
    from .lvis import Lvis
    from .mixing import mix
    from .packed import Parquet, Shards
    from .record_files import CreateMl, Labelbox, LabelStudio, Odgt
    from .sample import Sample
    from .sampling import (
        AttributeShares,
        ClassBalanced,
        ClassShares,
        InstanceRepeatFactor,
        OnlyWithObjects,
        Repeated,
        RepeatFactor,
    )
    from .shapes import Shapes
    from .supervisely import Supervisely
    from .tables import Csv
    from .transforms import Preprocessing
    from .voc import Voc
    from .wider_face import WiderFace
    from .writing import save
    from .yolo import Yolo

    from_fiftyone: Callable[..., Any]
    to_fiftyone: Callable[..., Any]

# Of the room above.
_FIFTYONE = ("from_fiftyone", "to_fiftyone")
# Where each name is defined; modules are imported when a name is first used, so that `import sdk` stays quick.
_HOMES = {
    "AttributeShares": "sampling",
    "Cityscapes": "cityscapes",
    "ClassBalanced": "sampling",
    "ClassShares": "sampling",
    "Coco": "coco",
    "CreateMl": "record_files",
    "Csv": "tables",
    "Cvat": "annotation_tools",
    "DatasetError": "errors",
    "DatasetWarning": "errors",
    "DeepFashion": "deepfashion",
    "DetectionDataset": "base",
    "ImageInfo": "base",
    "InstanceRepeatFactor": "sampling",
    "Kitti": "kitti",
    "LabelMe": "annotation_tools",
    "LabelStudio": "record_files",
    "Labelbox": "record_files",
    "Loader": "loader",
    "Lvis": "lvis",
    "Odgt": "record_files",
    "OnlyWithObjects": "sampling",
    "Parquet": "packed",
    "Preprocessing": "transforms",
    "RepeatFactor": "sampling",
    "Repeated": "sampling",
    "Sample": "sample",
    "Shapes": "shapes",
    "Shards": "packed",
    "Supervisely": "supervisely",
    "Via": "annotation_tools",
    "Voc": "voc",
    "WiderFace": "wider_face",
    "Yolo": "yolo",
    "amended": "combining",
    "concat": "combining",
    "ignoring": "ignore_lists",
    "mix": "mixing",
    "repeat": "combining",
    "save": "writing",
    "split": "combining",
    "subset": "combining",
}

__all__ = [
    "AttributeShares",
    "Cityscapes",
    "ClassBalanced",
    "ClassShares",
    "Coco",
    "CreateMl",
    "Csv",
    "Cvat",
    "DatasetError",
    "DatasetWarning",
    "DeepFashion",
    "DetectionDataset",
    "ImageInfo",
    "InstanceRepeatFactor",
    "Kitti",
    "LabelMe",
    "LabelStudio",
    "Labelbox",
    "Loader",
    "Lvis",
    "Odgt",
    "OnlyWithObjects",
    "Parquet",
    "Preprocessing",
    "RepeatFactor",
    "Repeated",
    "Sample",
    "Shapes",
    "Shards",
    "Supervisely",
    "Via",
    "Voc",
    "WiderFace",
    "Yolo",
    "amended",
    "concat",
    "from_fiftyone",
    "ignoring",
    "mix",
    "repeat",
    "save",
    "split",
    "subset",
    "to_fiftyone",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _FIFTYONE:
        return import_module(".base", __name__).from_above("fiftyone.converting", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
