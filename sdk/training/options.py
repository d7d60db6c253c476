"""What a training does otherwise than its recipe; light, for the shell makes its flags from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..models.recipe import Recipe, Schedule


def _option(help: str, kind: type, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=None, metadata={"help": help, "type": kind, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How the weights are changed; None leaves a field as the recipe has it.

    Raises:
        ValueError: naming the option, what was found and what is expected.
    """

    optimizer: str | None = _option("needs --lr where the recipe has another", str, ("sgd", "adam", "adamw"))
    schedule: str | None = _option("how the learning rate falls", str, ("step", "cosine", "flat"))
    weight_decay: float | None = _option("zero or more", float)
    clip_norm: float | None = _option("largest norm of the gradient, above zero", float)

    def __post_init__(self) -> None:
        for option in fields(self):
            value, choices = getattr(self, option.name), option.metadata["choices"]
            if value is None:
                continue
            if choices is not None:
                if value not in choices:
                    near = get_close_matches(str(value), choices, 1)
                    hint = f" (did you mean {near[0]}?)" if near else ""
                    raise ValueError(f"{option.name}: expected one of {', '.join(choices)}, found {value!r}{hint}")
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{option.name}: expected a finite number, found {value!r}")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ValueError(f"weight_decay: expected zero or more, found {self.weight_decay!r}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm: expected a number above zero, found {self.clip_norm!r}")

    def applied_to(self, recipe: Recipe, lr: float | None) -> Recipe:
        """The recipe with these instead of its own. lr: the user's, without which the optimizer cannot be another."""
        own = recipe.optimizer
        if self.optimizer not in (None, own.kind) and lr is None:
            raise ValueError(
                f"optimizer: {self.optimizer} needs lr= too, for the recipe's {own.lr:g} is that of {own.kind}"
            )
        given = {"kind": self.optimizer, "weight_decay": self.weight_decay, "clip_norm": self.clip_norm}
        optimizer = replace(own, **{name: value for name, value in given.items() if value is not None})
        return replace(recipe, optimizer=optimizer, schedule=self._schedule(recipe.schedule))

    def _schedule(self, own: Schedule) -> Schedule:
        if self.schedule is None:
            return own
        if self.schedule == "flat":
            return replace(own, decay="step", drops=())
        if self.schedule == "step" and (own.decay != "step" or not own.drops):
            # Where the recipe has none: the drops of the usual schedule of 12 epochs, 8 and 11, in proportion.
            return replace(own, decay="step", drops=(round(own.epochs * 8 / 12), round(own.epochs * 11 / 12)))
        return replace(own, decay=self.schedule)
