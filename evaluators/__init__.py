"""Scoring protocols, one file each.

``Coco``, ``Lvis``, ``Voc``, ``Cityscapes`` and ``WiderFace`` are the official protocols and their variations:
``sdk.evaluate(dataset, run, protocol=sdk.evaluators.Coco(max_detections=(1, 10, 300)))``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cityscapes import Cityscapes
    from .coco import Coco
    from .lvis import Lvis
    from .voc import Voc
    from .wider_face import WiderFace

__all__ = ["Cityscapes", "Coco", "Lvis", "Voc", "WiderFace"]

_HOMES = {"Cityscapes": "cityscapes", "Coco": "coco", "Lvis": "lvis", "Voc": "voc", "WiderFace": "wider_face"}


def __getattr__(name: str) -> Any:
    # Looking one up imports torch, which ``import sdk`` does not.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
