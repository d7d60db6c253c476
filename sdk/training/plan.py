"""A recipe as it is run on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..datasets.base import DetectionDataset
from ..datasets.loader import Loader
from ..datasets.sampling import Repeated, RepeatFactor, Sampler, sampler_of
from ..models.recipe import Recipe, Sampling, Schedule
from ..reports.progress import say
from .optimization import RISING_SHARE
from .options import Hardware, ModelOptions, Options
from .ranks import count_devices, launched_outside
from .sharding import sharding_strategy

PRECISIONS = {"32": "32-true", "fp32": "32-true", "16": "16-mixed", "fp16": "16-mixed", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Plan:
    """The recipe as it is run on this machine.

    batch_size: images per device and pass; ``accumulate`` passes make one step. lr: full learning rate. max_steps:
    those after which training ends although epochs are left, or none.
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
    max_steps: int | None = None

    @property
    def epochs(self) -> int:
        return self.schedule.epochs

    @property
    def steps(self) -> int:
        """Steps of the whole training, at whose end the learning rate has fallen."""
        steps = self.epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @property
    def total_batch_size(self) -> int:
        return self.batch_size * self.accumulate * self.world_size

    @property
    def log_every(self) -> int:
        """Steps between two lines of the metrics: about two thousand lines a training."""
        return max(1, self.steps // 2000)


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


def make_fabric(recipe: Recipe, options: Hardware) -> Fabric:
    """Fabric in the wished precision; the recipe's half precision becomes single where there is no GPU.

    Under torchrun, it decides over devices and nodes. The strategy ``fsdp`` spreads weights and optimizer over the
    processes; others are as Lightning Fabric takes them.
    """
    wished = options.precision or recipe.precision
    if PRECISIONS[wished] == "16-mixed" and not torch.cuda.is_available():
        if options.precision is not None:
            raise ValueError("precision: 16 needs a GPU; expected 32 or bf16 here")
        say("no GPU: training in precision 32 instead of the recipe's 16")
        wished = "32"
    devices, nodes = launched_outside(options.devices, options.nodes)
    processes = nodes * count_devices(devices)
    how: Any = options.strategy
    if how == "fsdp":
        how = sharding_strategy(processes) if processes > 1 else "auto"
    elif how == "auto" and processes > 1:
        how = "ddp"
    return Fabric(devices=devices, num_nodes=nodes, strategy=how, precision=PRECISIONS[wished])  # type: ignore[arg-type]


def make_plan(recipe: Recipe, loader: Loader, fabric: Fabric, options: Options) -> Plan:
    """The recipe's schedule on this machine: learning rate in proportion to the batch, drops to the epochs.

    The recipe's warm-up takes a tenth of the training at most: a small dataset has fewer steps than the recipe warms up
    for. One that is given is taken as it is.
    """
    own, accumulate = recipe.schedule, options.accumulate
    steps_per_epoch = -(-len(loader) // accumulate)
    epochs = options.epochs or own.epochs
    if options.max_steps is not None and options.epochs is None:
        epochs = -(-options.max_steps // steps_per_epoch)
    drops = tuple(max(1, round(drop * epochs / own.epochs)) for drop in own.drops)
    steps = min(epochs * steps_per_epoch, options.max_steps or epochs * steps_per_epoch)
    warmup = round(RISING_SHARE * steps) if own.decay == "one-cycle" else min(own.warmup_steps, steps // 10)
    total = loader.batch_size * accumulate * fabric.world_size
    scaled = recipe.optimizer.lr * total / (recipe.images_per_device * recipe.devices)
    return Plan(
        schedule=replace(own, epochs=epochs, drops=drops),
        batch_size=loader.batch_size,
        accumulate=accumulate,
        world_size=fabric.world_size,
        lr=options.lr or scaled,
        warmup_steps=warmup if options.warmup is None else options.warmup,
        steps_per_epoch=steps_per_epoch,
        precision=str(fabric.strategy.precision.precision),
        ema_decay=averaging(recipe, options),
        seed=options.seed,
        max_steps=options.max_steps,
    )


def averaging(recipe: Recipe, options: ModelOptions) -> float | None:
    """Decay of the averaged weights, or none without any."""
    return recipe.ema_decay if options.ema is None else options.ema or None


def tell(recipe: Recipe, plan: Plan, train: DetectionDataset, scored_on: DetectionDataset | None, folder: Path) -> None:
    """Says what is going to happen."""
    meant = recipe.images_per_device * recipe.devices
    say(f"training {recipe.name} on {len(train)} images of {len(train.classes)} classes, {told_length(plan)}")
    say(f"scoring on {len(scored_on)} images" if scored_on else "no validation set: the last weights are the best")
    say(
        f"batch {plan.total_batch_size} ({plan.batch_size} images x {plan.accumulate} passes x {plan.world_size} "
        f"devices), precision {plan.precision}"
    )
    say(
        f"learning rate {plan.lr:.4g} (the recipe's {recipe.optimizer.lr:.4g} is for a batch of {meant}), "
        f"{told_schedule(plan)}"
    )
    if plan.warmup_steps >= plan.steps:
        say(f"warning: the training has {plan.steps} steps, all of them warm-up: the full learning rate is not reached")
    say(f"everything goes to {folder}")


def tell_frozen(detector: nn.Module) -> None:
    """Says how many of the parameters are trained, where some are not."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in detector.parameters()]
    trained, whole = sum(n for n, grad in counts if grad), sum(n for n, _ in counts)
    if trained < whole:
        say(f"{trained:,} of {whole:,} parameters are trained, the others frozen")


def told_length(plan: Plan) -> str:
    """How long it takes, in words."""
    cut = "" if plan.max_steps is None else f", {plan.steps} steps at most"
    return f"{plan.epochs} epochs{cut}"


def told_schedule(plan: Plan) -> str:
    """How the learning rate rises and falls, in words."""
    schedule = plan.schedule
    if schedule.decay == "one-cycle":
        return f"one cycle: rising for {plan.warmup_steps} steps, falling to nearly zero until step {plan.steps}"
    drops = ", ".join(map(str, schedule.drops))
    falls = f"times {schedule.drop_factor:g} after epochs {drops}" if drops else "flat"
    return f"warm-up {plan.warmup_steps} steps, then {'a cosine' if schedule.decay == 'cosine' else falls}"
