"""What a user's own code is told of a training while it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..evaluators.base import Report
    from ..results.run import Run
    from .loop import Training
    from .readout import StepFigures


class Callback(Protocol):
    """What ``sdk.fit(callbacks=[...])`` calls; a subclass writes those methods that it wants.

    Every process calls its own; in the first one ``training.fabric.is_global_zero``. ``training`` is the state at this
    moment: ``step``, ``epoch``, ``detector``, ``plan``, ``folder``. ``training.end(why)`` ends it after the step at
    hand, with weights scored and kept as usual. An exception ends it as it is: Optuna's ``TrialPruned``, say.
    """

    def on_fit_start(self, training: Training) -> None:
        """Before the first step, or the first one after it was resumed."""

    def on_step(self, training: Training, figures: StepFigures) -> None:
        """When the figures of a step are known, which on a GPU may be some steps later."""

    def on_validation(self, training: Training, report: Report) -> None:
        """After each scoring."""

    def on_epoch_end(self, training: Training) -> None:
        """After each epoch, when its weights are kept; after the last one also where it was cut short."""

    def on_fit_end(self, run: Run) -> None:
        """When all is written."""


def require_callbacks(given: Sequence[Any]) -> None:
    """Raises ValueError where one of these has none of the methods of a callback."""
    names = [name for name in vars(Callback) if name.startswith("on_")]
    for number, callback in enumerate(given):
        missing = [name for name in names if not callable(getattr(callback, name, None))]
        if missing:
            raise ValueError(
                f"callbacks[{number}]: {callback!r} has no {', '.join(missing)}; expected a subclass of "
                "sdk.training.callbacks.Callback, which has them all"
            )
