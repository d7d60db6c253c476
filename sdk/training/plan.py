"""A recipe as it is run on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from ..datasets.base import DetectionDataset
from ..datasets.loader import Loader
from ..datasets.sampling import Repeated, RepeatFactor, Sampler, sampler_of
from ..datasets.transforms import Flip, Preprocessing, Resize, Transform
from ..models.recipe import Recipe, Sampling, Schedule
from ..reports.progress import say
from .ranks import count_devices, launched_outside
from .sharding import sharding_strategy

PRECISIONS = {"32": "32-true", "fp32": "32-true", "16": "16-mixed", "fp16": "16-mixed", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Plan:
    """The recipe as it is run on this machine.

    batch_size: images per device and pass; ``accumulate`` passes make one step. lr: full learning rate.
    """

    schedule: Schedule
    batch_size: int
    accumulate: int
    world_size: int
    lr: float
    warmup_steps: int
    steps_per_epoch: int
    precision: str
    ema_decay: float | None
    seed: int

    @property
    def epochs(self) -> int:
        return self.schedule.epochs

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def total_batch_size(self) -> int:
        return self.batch_size * self.accumulate * self.world_size

    @property
    def log_every(self) -> int:
        """Steps between two lines of the metrics: about two thousand lines a training."""
        return max(1, self.steps // 2000)


def default_transforms(preprocessing: Preprocessing) -> tuple[Transform, ...]:
    """For a recipe without training transforms: the test size, and a flip half of the time."""
    if preprocessing.size is None:
        return (Flip(),)
    return Resize((preprocessing.size,), preprocessing.keep_ratio), Flip()


def samplers(sampling: Sampling, given: Any, train: DetectionDataset) -> list[Sampler]:
    """What decides how often an image is seen: the recipe's sampling, or what the user gives instead; and the shares
    of a mixture of datasets."""
    own = getattr(train, "sampler", None)
    found: list[Sampler] = [] if own is None else [own]
    if given != "recipe":
        chosen = sampler_of(given)
        return found if chosen is None else [*found, chosen]
    if sampling.repeat_factor is not None:
        found.append(RepeatFactor(sampling.repeat_factor))
    if sampling.repeats != 1:
        found.append(Repeated(sampling.repeats))
    return found


def make_fabric(
    recipe: Recipe, precision: str | None, devices: int | str | list[int], nodes: int, strategy: str
) -> Fabric:
    """Fabric in the wished precision; the recipe's half precision becomes single where there is no GPU.

    Under torchrun, it decides over devices and nodes. strategy: ``fsdp`` spreads weights and optimizer over the
    processes; otherwise as Lightning Fabric takes it.
    """
    wished = recipe.precision if precision is None else precision
    if wished not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, found {wished!r}")
    if PRECISIONS[wished] == "16-mixed" and not torch.cuda.is_available():
        if precision is not None:
            raise ValueError("precision: 16 needs a GPU; expected 32 or bf16 here")
        say("no GPU: training in precision 32 instead of the recipe's 16")
        wished = "32"
    devices, nodes = launched_outside(devices, nodes)
    processes = nodes * count_devices(devices)
    how: Any = strategy
    if strategy == "fsdp":
        how = sharding_strategy(processes) if processes > 1 else "auto"
    elif strategy == "auto" and processes > 1:
        how = "ddp"
    return Fabric(devices=devices, num_nodes=nodes, strategy=how, precision=PRECISIONS[wished])  # type: ignore[arg-type]


def require_positive(*, epochs: int | None, accumulate: int, lr: float | None) -> None:
    """Raises ValueError naming the first of these that is given and is not a positive number, whole where it counts."""
    for name, number in (("epochs", epochs), ("accumulate", accumulate)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ValueError(f"{name}: expected a positive number without a fraction, found {number!r}")
    if lr is not None and not lr > 0:
        raise ValueError(f"lr: expected a positive number, found {lr!r}")


def make_plan(
    recipe: Recipe,
    loader: Loader,
    fabric: Fabric,
    *,
    epochs: int | None,
    accumulate: int,
    lr: float | None,
    ema_decay: float | None,
    seed: int,
) -> Plan:
    """The recipe's schedule on this machine: learning rate in proportion to the batch, drops to the epochs.

    Warm-up takes a tenth of the training at most: a small dataset has fewer steps than the recipe warms up for.
    """
    epochs = recipe.schedule.epochs if epochs is None else epochs
    drops = tuple(max(1, round(drop * epochs / recipe.schedule.epochs)) for drop in recipe.schedule.drops)
    steps_per_epoch = -(-len(loader) // accumulate)
    total = loader.batch_size * accumulate * fabric.world_size
    scaled = recipe.optimizer.lr * total / (recipe.images_per_device * recipe.devices)
    return Plan(
        schedule=replace(recipe.schedule, epochs=epochs, drops=drops),
        batch_size=loader.batch_size,
        accumulate=accumulate,
        world_size=fabric.world_size,
        lr=scaled if lr is None else lr,
        warmup_steps=min(recipe.schedule.warmup_steps, epochs * steps_per_epoch // 10),
        steps_per_epoch=steps_per_epoch,
        precision=str(fabric.strategy.precision.precision),
        ema_decay=recipe.ema_decay if ema_decay is None else ema_decay,
        seed=seed,
    )


def tell(recipe: Recipe, plan: Plan, train: DetectionDataset, scored_on: DetectionDataset | None, folder: Path) -> None:
    """Says what is going to happen."""
    meant = recipe.images_per_device * recipe.devices
    say(f"training {recipe.name} on {len(train)} images of {len(train.classes)} classes, {plan.epochs} epochs")
    say(f"scoring on {len(scored_on)} images" if scored_on else "no validation set: the last weights are the best")
    drops = plan.schedule.drops
    falls = f"times {plan.schedule.drop_factor:g} after epochs {', '.join(map(str, drops))}" if drops else "flat"
    say(
        f"batch {plan.total_batch_size} ({plan.batch_size} images x {plan.accumulate} passes x {plan.world_size} "
        f"devices), precision {plan.precision}"
    )
    say(
        f"learning rate {plan.lr:.4g} (the recipe's {recipe.optimizer.lr:.4g} is for a batch of {meant}), "
        f"warm-up {plan.warmup_steps} steps, then {'a cosine' if plan.schedule.decay == 'cosine' else falls}"
    )
    say(f"everything goes to {folder}")
