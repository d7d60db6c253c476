"""Object detection and instance segmentation, centred on your dataset.

The verbs (``fit``, ``evaluate``, ``predict``, ``explore``, ``check``, ``compare``, ``doctor``) and the rooms
(``datasets``, ``models``, ``ops``, ``evaluators``) are imported when first used, so that ``import sdk`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import datasets, evaluators, models, ops, runtime
    from .inference.tiling import Tiles
    from .insight.review import Review
    from .opening import open_dataset as open
    from .results.run import Run
    from .verbs.check import check
    from .verbs.compare import compare
    from .verbs.convert import convert
    from .verbs.diff import diff
    from .verbs.doctor import doctor
    from .verbs.evaluate import evaluate
    from .verbs.explore import explore
    from .verbs.export import export
    from .verbs.fit import fit
    from .verbs.predict import predict
    from .verbs.review import review
    from .verbs.verify import verify

__all__ = [
    "Review",
    "Run",
    "Tiles",
    "__version__",
    "check",
    "compare",
    "convert",
    "datasets",
    "diff",
    "doctor",
    "evaluate",
    "evaluators",
    "explore",
    "export",
    "fit",
    "models",
    "open",
    "ops",
    "predict",
    "review",
    "runtime",
    "verify",
]

# Where each name of the face is defined; rooms are modules themselves.
_HOMES = {
    "Review": "insight.review",
    "Run": "results.run",
    "Tiles": "inference.tiling",
    "check": "verbs.check",
    "compare": "verbs.compare",
    "diff": "verbs.diff",
    "convert": "verbs.convert",
    "doctor": "verbs.doctor",
    "evaluate": "verbs.evaluate",
    "explore": "verbs.explore",
    "export": "verbs.export",
    "fit": "verbs.fit",
    "predict": "verbs.predict",
    "review": "verbs.review",
    "verify": "verbs.verify",
}


def __getattr__(name: str) -> Any:
    if name == "open":
        # In its own module it has a name that hides nothing of Python's.
        return import_module(".opening", __name__).open_dataset
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
