"""Object detection and instance segmentation, centred on your dataset.

The verbs (``fit``, ``evaluate``, ``predict``, ``explore``, ``check``, ``doctor``) and the rooms (``datasets``,
``models``, ``ops``, ``evaluators``) are imported when first used, so that ``import sdk`` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets, evaluators, models, ops
    from .check import check
    from .checkpoint import Run
    from .doctor import doctor
    from .evaluate import evaluate
    from .explore import explore
    from .fit import fit
    from .predict import predict

__version__ = "0.1.0"
__all__ = [
    "Run",
    "check",
    "datasets",
    "doctor",
    "evaluate",
    "evaluators",
    "explore",
    "fit",
    "models",
    "ops",
    "predict",
]


class _Verb:
    """Gives the function that a submodule of the same name defines.

    The import system binds ``sdk.fit`` to the module once anything imports it; as a data descriptor this wins over
    that binding, so ``sdk.fit`` is the function at all times.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __get__(self, package: ModuleType | None, owner: type) -> Any:
        return self if package is None else getattr(import_module(f"{__name__}.{self.module}"), self.name)

    def __set__(self, package: ModuleType, value: object) -> None:
        """Leaves the verb in place when the import system binds the submodule."""


class _Package(ModuleType):
    fit = _Verb("fit", "fit")
    evaluate = _Verb("evaluate", "evaluate")
    predict = _Verb("predict", "predict")
    explore = _Verb("explore", "explore")
    check = _Verb("check", "check")
    doctor = _Verb("doctor", "doctor")
    Run = _Verb("checkpoint", "Run")

    def __getattr__(self, name: str) -> Any:
        if name in ("datasets", "models", "ops", "evaluators"):
            return import_module(f"{self.__name__}.{name}")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
