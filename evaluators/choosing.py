"""Which evaluator scores a dataset."""

from __future__ import annotations

from typing import Any

from ..datasets.errors import DatasetError
from ..datasets.index import columns_of
from .base import Evaluator
from .cityscapes import CityscapesEvaluator
from .coco import CocoEvaluator, Kind
from .lvis import LvisEvaluator
from .voc import VocEvaluator
from .wider_face import WiderFaceEvaluator


def evaluator_for(dataset: Any, protocol: str | None = None) -> Evaluator:
    """The evaluator of a protocol for a dataset, by default of the dataset's own.

    Masks are scored where the dataset has any.

    Raises:
        DatasetError: when there is no such protocol.
    """
    if protocol is None:
        return dataset.evaluator()
    kinds: tuple[Kind, ...] = ("bbox",) if columns_of(dataset).segments is None else ("bbox", "segm")
    if protocol == "coco":
        return CocoEvaluator(dataset, kinds=kinds)
    if protocol == "lvis":
        return LvisEvaluator(dataset, kinds=kinds)
    if protocol == "voc":
        return VocEvaluator(dataset)
    if protocol == "cityscapes":
        return CityscapesEvaluator(dataset)
    if protocol == "wider_face":
        return WiderFaceEvaluator(dataset)
    raise DatasetError("no such protocol", found=protocol, expected="coco, lvis, voc, cityscapes or wider_face")
