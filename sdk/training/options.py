"""Every option of a training, once: keywords of ``sdk.fit``, flags, a YAML file and the manifest are ways to say them.

Light, for the shell makes its flags from it.
"""

from __future__ import annotations

import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from ..datasets.adapter import OnFault
    from ..models.recipe import Recipe, Schedule

P = ParamSpec("P")
R = TypeVar("R")


def anything(help: str, default: Any = None, **metadata: Any) -> Any:
    """An option; ``parse`` makes its value of the text that a shell or a file has, None where these cannot say it."""
    return field(default=default, metadata={"help": help, "parse": str, **metadata})


def whole(help: str, default: Any = None, least: int = 1) -> Any:
    """An option that counts something."""
    return anything(help, default, parse=int, least=least)


def number(help: str, default: Any = None, **bounds: float) -> Any:
    """An option that measures something; ``above`` or ``least`` bounds it."""
    return anything(help, default, parse=float, **bounds)


def choice(help: str, *choices: str, default: Any = None, **metadata: Any) -> Any:
    """An option that is one of some names."""
    return anything(help, default, choices=choices, **metadata)


def flag(help: str) -> Any:
    """An option that is on or off."""
    return anything(help, False, parse=bool)


def sampling_from(text: str) -> Any:
    """A sampling by name, or shares by class."""
    pairs = [part.rpartition("=") for part in text.split(",")]
    if "=" not in text or text.partition("=")[0] in ("repeat_factor", "instance_repeat_factor"):
        return text
    try:
        return {name: float(share) for name, _, share in pairs}
    except ValueError as error:
        raise ValueError(f"sampling: expected a name, or shares such as person=0.2,car=0.1; found {text!r}") from error


def devices_from(text: str) -> str | int | list[int]:
    """How many devices, or which."""
    if text == "auto":
        return text
    return [int(part) for part in text.split(",")] if "," in text else int(text)


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """Raises ValueError naming the option, what was found and what is expected."""

    def __post_init__(self) -> None:
        for option in fields(self):
            _check(option, getattr(self, option.name))


def _check(option: Field, value: Any) -> None:
    name, told = option.name, option.metadata
    if value is None and option.default is None:
        return
    if "choices" in told:
        if value not in told["choices"]:
            expected = f"one of {', '.join(told['choices'])}"
            raise ValueError(f"{name}: expected {expected}, found {value!r}{nearest(value, told['choices'])}")
    elif told["parse"] is int:
        if isinstance(value, bool) or not isinstance(value, int) or value < told["least"]:
            raise ValueError(f"{name}: expected a whole number of at least {told['least']}, found {value!r}")
    elif told["parse"] is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, found {value!r}")
        if "above" in told and value <= told["above"]:
            raise ValueError(f"{name}: expected a number above {told['above']:g}, found {value!r}")
        if "least" in told and value < told["least"]:
            raise ValueError(f"{name}: expected a number of at least {told['least']:g}, found {value!r}")
    elif told["parse"] is bool and not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, found {value!r}")


def nearest(found: object, names: Sequence[str]) -> str:
    """A hint at the name that was probably meant, or nothing."""
    near = get_close_matches(str(found), names, 1)
    return f" (did you mean {near[0]}?)" if near else ""


@dataclass(frozen=True, kw_only=True)
class DataOptions(_Checked):
    """What is shown to the detector."""

    validation: Any = anything("what to score instead of the dataset's own val")
    on_fault: OnFault = choice("what a broken annotation does", "raise", "skip", "repair", default="raise")
    batch_size: int | None = whole("images per device and pass (default: the recipe's)")
    workers: int | None = whole("processes that load images (default: one a core, eight at most)", least=0)
    sampling: Any = anything(
        "recipe, uniform, class_balanced, repeat_factor[=0.001], instance_repeat_factor[=0.001], with_objects, or "
        "shares of the showings by class: person=0.2,car=0.1; in Python also a dict of shares or a sampler",
        "recipe",
        parse=sampling_from,
    )
    leaks: str = choice(
        "what images do that are equal byte for byte in training and validation",
        "warn",
        "raise",
        "ignore",
        default="warn",
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(_Checked):
    """What is trained."""

    backbone: str | None = anything(
        "another backbone for a row with a feature pyramid, such as timm/convnext_tiny.fb_in1k"
    )
    ema_decay: float | None = number("score and keep averaged weights of this decay", least=0)
    recipe: Recipe | None = anything("instead of the model's own", parse=None)


@dataclass(frozen=True, kw_only=True)
class Optimization(_Checked):
    """How long the weights are changed, and how; None leaves it as the recipe has it."""

    epochs: int | None = whole("passes over the data (default: the recipe's)")
    lr: float | None = number(
        "learning rate at the total batch size (default: the recipe's, in proportion to the batch; Goyal et al., "
        '"Accurate, Large Minibatch SGD", section 2.1)',
        above=0,
    )
    optimizer: str | None = choice("needs lr where the recipe has another", "sgd", "adam", "adamw")
    schedule: str | None = choice("how the learning rate falls", "step", "cosine", "one-cycle", "flat")
    warmup: int | None = whole(
        "steps over which the learning rate rises; 0 for none (default: the recipe's, a tenth of the training at "
        "most; with one-cycle three tenths)",
        least=0,
    )
    weight_decay: float | None = number("of the optimizer (default: the recipe's)", least=0)
    clip_norm: float | None = number("largest norm of the gradient (default: the recipe's)", above=0)
    accumulate: int = whole("passes that make one step", 1)
    patience: int | None = whole("stop when the main figure has not risen for so many epochs")
    seed: int = whole("decides fresh weights, order, augmentation and everything drawn inside the model", 0, least=0)

    def applied_to(self, recipe: Recipe) -> Recipe:
        """The recipe with these instead of its own."""
        own = recipe.optimizer
        if self.optimizer not in (None, own.kind) and self.lr is None:
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


@dataclass(frozen=True, kw_only=True)
class Hardware(_Checked):
    """What it is trained on."""

    devices: int | str | list[int] = anything("how many, or which as 0,1; auto: all GPUs", "auto", parse=devices_from)
    nodes: int = whole("machines", 1)
    strategy: str = anything("of Lightning Fabric, such as ddp; or fsdp", "auto")
    precision: str | None = choice("of the network (default: the recipe's)", "32", "bf16", "16", "fp32", "fp16")
    deterministic: bool = flag("equal weights twice, also on a GPU, or an error that names the operation")


@dataclass(frozen=True, kw_only=True)
class Saving(_Checked):
    """What is written, and what stays.

    A state is also written after every epoch and when the training is told to stop. With ``keep_last=1`` a damaged file
    ends the run.
    """

    out: Any = anything("run folder (default: runs/<model>, with a number where that is taken)")
    resume: str | None = choice("go on from the run folder's last state where there is one", "auto", const="auto")
    save_every: int = whole("steps between saved states", 500)
    save_minutes: float | None = number("minutes between saved states", above=0)
    keep_last: int = whole("newest states that stay", 2)
    keep_best: int = whole("epochs whose weights stay, those that scored best", 1)
    profile: bool = flag(
        "watch some steps, and write where their time goes into RUN/profile: a table, and a trace that "
        "https://ui.perfetto.dev opens"
    )


GROUPS: dict[str, type[_Checked]] = {
    "data": DataOptions,
    "model": ModelOptions,
    "optimization": Optimization,
    "hardware": Hardware,
    "saving": Saving,
}


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions, ModelOptions, Optimization, Hardware, Saving):
    """Everything that can be said about a training, besides the data and the detector."""


DECIDING = ("warmup",)
"""Options that decide over the weights and do not all show in plan and recipe: a resumed run has the same."""


def grouped_options() -> dict[str, list[Field]]:
    """The options by their group, in the order in which they are written."""
    return {name: list(fields(group)) for name, group in GROUPS.items()}


def takes(
    options: Callable[P, Options],
) -> Callable[[Callable[[Any, Any, Options], R]], Callable[Concatenate[Any, Any, P], R]]:
    """Gives a verb of a dataset, a model and ``Options`` these as keywords, in its signature and its documentation."""

    def made(verb: Callable[[Any, Any, Options], R]) -> Callable[Concatenate[Any, Any, P], R]:
        @functools.wraps(verb)
        def call(dataset: Any, model: Any, *args: P.args, **given: P.kwargs) -> R:
            require_known(given)
            return verb(dataset, model, options(*args, **given))

        own = [p for name, p in inspect.signature(verb).parameters.items() if name != "options"]
        keywords = [
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type
            )
            for group in grouped_options().values()
            for option in group
        ]
        call.__signature__ = inspect.Signature([*own, *keywords], return_annotation="Run")  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.cleandoc(verb.__doc__ or '')}\n\n{described()}"
        return call

    return made


def require_known(given: Mapping[str, Any]) -> None:
    """Raises TypeError for the first name that is no option, with the nearest that is."""
    names = [option.name for option in fields(Options)]
    for name in given:
        if name not in names:
            raise TypeError(
                f"{name}: no option of a training{nearest(name, names)}; there are {', '.join(sorted(names))}"
            )


def described() -> str:
    """All options with what they mean, by group."""
    lines = []
    for group, options in grouped_options().items():
        lines.append(f"Options, {group}:")
        for option in options:
            choices = option.metadata.get("choices")
            told = option.metadata["help"] + (f": {', '.join(choices)}" if choices else "")
            default = "" if option.default in (None, False) else f" (default: {option.default})"
            lines += textwrap.wrap(
                f"{option.name}: {told}{default}", 112, initial_indent="    ", subsequent_indent=" " * 8
            )
    return "\n".join(lines)
