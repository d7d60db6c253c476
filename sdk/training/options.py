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
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from ..errors import SdkError, nearest

if TYPE_CHECKING:
    from ..datasets.adapter import OnFault
    from ..models.recipe import Recipe, Schedule

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
TRANSFORMS = ("recipe", "light", "strong", "none")
LOGGERS = ("tensorboard", "csv", "wandb", "mlflow", "aim")


def anything(help: str, default: Any = None, **metadata: Any) -> Any:
    """An option; ``parse`` makes its value of the text that a shell or a file has, None where these cannot say it."""
    return field(default=default, metadata={"help": help, "parse": str, **metadata})


def whole(help: str, default: Any = None, least: int = 1) -> Any:
    """An option that counts something."""
    return anything(help, default, parse=int, least=least)


def number(help: str, default: Any = None, **bounds: float) -> Any:
    """An option that measures something; ``above``, ``least`` and ``most`` bound it."""
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


def size_from(text: str) -> int | tuple[int, ...]:
    """An edge, or two of them as 1333x800."""
    parts = text.replace(",", "x").split("x")
    if not all(part.strip().isdigit() for part in parts):
        raise ValueError(f"image_size: expected an edge, or two as 1333x800, found {text!r}")
    edges = tuple(map(int, parts))
    return edges[0] if len(edges) == 1 else edges


def names_from(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """Raises ValueError naming the option, what was found and what is expected."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if option.metadata["parse"] in (names_from, size_from) and isinstance(value, str):
                # As in a shell.
                value = option.metadata["parse"](value)
                object.__setattr__(self, option.name, value)
            require_restored(value)
            _check(option, value)


def _check(option: Field, value: Any) -> None:
    name, told = option.name, option.metadata
    if value is None and option.default is None:
        return
    if told["parse"] is size_from:
        edges = [value] if isinstance(value, int) else value
        if not isinstance(edges, Sequence) or len(edges) not in (1, 2) or not all(map(_is_edge, edges)):
            raise ValueError(f"{name}: expected an edge of {LEAST_EDGE} pixels or more, or two, found {value!r}")
    elif told["parse"] is names_from:
        _check_names(name, value, told.get("among"))
    elif isinstance(value, str) and value not in told.get("named", (value,)):
        expected = f"one of {', '.join(told['named'])}"
        raise ValueError(f"{name}: expected {expected}, found {value!r}{nearest(value, told['named'])}")
    elif "choices" in told:
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
        if "most" in told and value > told["most"]:
            raise ValueError(f"{name}: expected a number of at most {told['most']:g}, found {value!r}")
        if "least" in told and value < told["least"]:
            raise ValueError(f"{name}: expected a number of at least {told['least']:g}, found {value!r}")
    elif told["parse"] is bool and not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, found {value!r}")


LEAST_EDGE = 32
"""Smaller images leave nothing of the deeper maps of any backbone."""


def _is_edge(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= LEAST_EDGE


def _check_names(name: str, value: object, among: Sequence[str] | None) -> None:
    if not isinstance(value, Sequence):
        raise ValueError(f"{name}: expected a list of names, found {value!r}")
    for item in value:
        if not isinstance(item, str):
            raise ValueError(f"{name}: expected names, found {item!r}")
        if among is not None and item not in among:
            raise ValueError(f"{name}: expected some of {', '.join(among)}, found {item!r}{nearest(item, among)}")


@dataclass(frozen=True, kw_only=True)
class DataOptions(_Checked):
    """What is shown to the detector."""

    classes: Sequence[str] | None = anything(
        "names of the classes that are learnt and scored, in this order; objects of others are background "
        "(default: all)",
        parse=names_from,
    )
    validation: Any = anything("what to score instead of the dataset's own val")
    on_fault: OnFault = choice("what a broken annotation does", "raise", "skip", "repair", default="raise")
    batch_size: int | None = whole("images per device and pass (default: the recipe's)")
    find_batch_size: bool = flag("as many of them, a power of two, as the free memory holds; the learning rate follows")
    workers: int | None = whole("processes that load images (default: one a core, eight at most)", least=0)
    image_size: int | Sequence[int] | None = anything(
        "longest edge of the images, or long and short one as 1333x800, in training and in use (default: the recipe's)",
        parse=size_from,
    )
    transforms: Any = anything(
        f"how images are varied: {', '.join(TRANSFORMS)}; in Python also a list", "recipe", named=TRANSFORMS
    )
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
    freeze: Sequence[str] = anything(
        "parts that are not trained, batch normalization included: backbone, stage2 (the stem and two stages), and "
        "names of modules and parameters, as neck or backbone.layer*.bn1",
        (),
        parse=names_from,
    )
    anchors: str | None = choice(
        "shapes by k-means from the data's objects, where anchors are matched by IoU (default: the recipe's)", "auto"
    )
    weights: Any = anything(
        "of a name of the zoo: published, backbone, a file, or none for random ones (default: published where the row "
        "has some, else backbone)"
    )
    ema: float | None = number(
        "score and keep averaged weights of this decay, such as 0.9998; 0: none (default: the recipe's)",
        least=0,
        most=1,
    )
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
    find_lr: bool = flag("take the rate at which the loss falls fastest in some sixty steps of a copy of the detector")
    optimizer: str | None = choice("needs lr where the recipe has another", "sgd", "adam", "adamw")
    schedule: str | None = choice("how the learning rate falls", "step", "cosine", "one-cycle", "flat")
    warmup: int | None = whole(
        "steps over which the learning rate rises; 0 for none (default: the recipe's, a tenth of the training at "
        "most; with one-cycle three tenths)",
        least=0,
    )
    weight_decay: float | None = number("of the optimizer (default: the recipe's)", least=0)
    clip_norm: float | None = number("largest norm of the gradient (default: the recipe's)", above=0)
    max_steps: int | None = whole(
        "steps after which training ends; without epochs it has as many of them as these steps need"
    )
    max_time: float | None = number("minutes of this call after which training ends with the step at hand", above=0)
    accumulate: int = whole("passes that make one step", 1)
    seed: int = whole("decides fresh weights, order, augmentation and everything drawn inside the model", 0, least=0)

    def applied_to(self, recipe: Recipe) -> Recipe:
        """The recipe with these instead of its own."""
        own = recipe.optimizer
        if self.find_lr and self.lr is not None:
            raise ValueError("find_lr: lr is given too; expected one of them")
        if self.optimizer not in (None, own.kind) and self.lr is None and not self.find_lr:
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
class Scoring(_Checked):
    """How it is followed while it is trained."""

    val_every: int = whole("epochs between scorings; the last epoch is always scored", 1)
    monitor: str | None = anything(
        "figure that decides which weights are best, such as bbox/AP50 (default: the main one)"
    )
    patience: int | None = whole("stop when that figure has not risen for so many scorings")
    callbacks: Sequence[Any] = anything("objects that are told of every step, scoring and epoch", (), parse=None)
    loggers: Sequence[str] = anything(
        f"tools that show the figures, some of {', '.join(LOGGERS)}; metrics.jsonl is always written",
        ("tensorboard",),
        parse=names_from,
        among=LOGGERS,
    )


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


@dataclass(frozen=True, kw_only=True)
class Source(_Checked):
    """Where options come from that are not given, and what is done with them."""

    config: Any = anything("YAML file that says dataset, model and options; what is given besides counts")
    from_manifest: Any = anything(
        "run whose dataset, model and options are taken; says what is otherwise now: data, versions, commits, hardware"
    )
    dry_run: bool = flag(
        "say all that would happen, with the memory that it takes, draw a batch into RUN/batch.png, and stop"
    )


GROUPS: dict[str, type[_Checked]] = {
    "data": DataOptions,
    "model": ModelOptions,
    "optimization": Optimization,
    "scoring": Scoring,
    "hardware": Hardware,
    "saving": Saving,
    "source": Source,
}


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions, ModelOptions, Optimization, Scoring, Hardware, Saving, Source):
    """Everything that can be said about a training, besides the data and the detector."""


DECIDING = ("warmup", "freeze", "anchors")
"""Options that decide over the weights and do not all show in plan and recipe: a resumed run has the same."""


def grouped_options() -> dict[str, list[Field]]:
    """The options by their group, in the order in which they are written."""
    return {name: list(fields(group)) for name, group in GROUPS.items()}


class Verb(Protocol[P, R]):
    """A verb of a dataset and a model that takes options as keywords."""

    def __call__(self, dataset: Any = None, model: Any = None, *args: P.args, **given: P.kwargs) -> R: ...


def takes(options: Callable[P, Options]) -> Callable[[Callable[[Any, Any, Options], R]], Verb[P, R]]:
    """Gives a verb of a dataset, a model and ``Options`` these as keywords, in its signature and its documentation."""

    def made(verb: Callable[[Any, Any, Options], R]) -> Verb[P, R]:
        @functools.wraps(verb)
        def call(dataset: Any = None, model: Any = None, *args: P.args, **given: P.kwargs) -> R:
            require_known(given)
            earlier = from_sources(given.get("config"), given.get("from_manifest"))
            known = {"dataset": earlier.pop("dataset", None), "model": earlier.pop("model", None)}
            dataset = known["dataset"] if dataset is None else dataset
            model = known["model"] if model is None else model
            for name, value in (("dataset", dataset), ("model", model)):
                require_restored(value)
                if value is None:
                    raise SdkError(f"{name}: expected one, in the call or in what config= or from_manifest= names")
            return verb(dataset, model, options(*args, **{**earlier, **given}))  # type: ignore[arg-type]

        places = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation="Any")
            for name in ("dataset", "model")
        ]
        keywords = [
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type
            )
            for group in grouped_options().values()
            for option in group
        ]
        call.__signature__ = inspect.Signature([*places, *keywords], return_annotation="Run")  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.cleandoc(verb.__doc__ or '')}\n\n{described()}"
        return call

    return made


def from_sources(config: Any, run: Any) -> dict[str, Any]:
    """``dataset``, ``model`` and options that a YAML file or the manifest of a run say; the file's come first."""
    found = {} if run is None else _of_manifest(Path(run))
    return found if config is None else {**found, **_of_file(Path(config))}


def _of_file(path: Path) -> dict[str, Any]:
    """What a YAML file says: ``dataset``, ``model``, and options, by themselves or under the name of their group."""
    import yaml

    if not path.is_file():
        raise SdkError(f"{path}: no such file; expected a YAML file with dataset, model and options")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise SdkError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise SdkError(f"{path}: expected names and values such as epochs: 12, found {content!r:.100}")
    known = {option.name: option for option in fields(Options)}
    flat: dict[str, Any] = {}
    for name, value in content.items():
        group = GROUPS.get(name)
        if group is None or not isinstance(value, dict):
            flat[str(name)] = value
            continue
        own = [option.name for option in fields(group)]
        for inner, item in value.items():
            if inner not in own:
                raise SdkError(f"{path}: {name}.{inner}: no such option{nearest(inner, own)}; it has {', '.join(own)}")
            flat[inner] = item
    for name, value in flat.items():
        if name not in ("dataset", "model") and (name not in known or known[name].metadata["parse"] is None):
            names = ["dataset", "model", *GROUPS, *known]
            raise SdkError(f"{path}: {name}: no such option{nearest(name, names)}")
        try:
            flat[name] = _typed(value, known.get(name))
        except ValueError as error:
            raise SdkError(f"{path}: {name}: {error}") from error
    return {name: value for name, value in flat.items() if value is not None}


def _typed(value: Any, option: Field | None) -> Any:
    """A value of a YAML file as the option has it: 1e-3 is a text there, and a precision of 32 a number."""
    if option is None:
        return value
    parse = option.metadata["parse"]
    if isinstance(value, str) and parse not in (str, bool):
        return parse(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and parse in (str, names_from):
        return str(value)
    return tuple(value) if isinstance(value, list) and parse in (names_from, size_from) else value


def _of_manifest(run: Path) -> dict[str, Any]:
    """What a run was given, but for its folder; objects of Python cannot come out of a file."""
    # Here, for the shell makes its flags without it.
    from ..results.manifest import MANIFEST, read_manifest

    folder = run if run.is_dir() else run.parent
    path, given = folder / MANIFEST, read_manifest(folder).get("given")
    if given is None:
        raise SdkError(f"{path}: of a version that did not write down what was given")
    known = {option.name for option in fields(Options)} - {"out", "resume", "config", "from_manifest", "dry_run"}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known and name not in ("dataset", "model"):
            continue
        if isinstance(value, dict) and "object" in value:
            found[name] = Missing(f"{path}: {name} was given as an object of Python; give it again", value["object"])
        elif value is not None:
            found[name] = tuple(value) if isinstance(value, list) and name != "devices" else value
    return found


@dataclass(frozen=True)
class Missing:
    """Stands for an object that a manifest can only describe."""

    told: str
    described: Any


def require_restored(value: object) -> None:
    """Raises SdkError where a manifest could only describe what is needed."""
    if isinstance(value, Missing):
        raise SdkError(f"{value.told} ({value.described!r:.200})")


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
        lines.append(f"{group.capitalize()} options:")
        for option in options:
            choices = option.metadata.get("choices")
            told = option.metadata["help"] + (f": {', '.join(choices)}" if choices else "")
            default = "" if option.default in (None, False) else f" (default: {option.default})"
            lines += textwrap.wrap(
                f"{option.name}: {told}{default}", 112, initial_indent="    ", subsequent_indent=" " * 8
            )
    return "\n".join(lines)
