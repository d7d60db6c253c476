"""Training: one loop, readable from top to bottom.

Devices, nodes, precision and strategies come from Lightning Fabric; everything else happens here.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from .batching import Batch, Collate, require_readable
from .checkpoint import (
    MANIFEST,
    TRAINING_STATE,
    Run,
    load,
    load_state,
    load_training_state,
    read_manifest,
    require_fitting,
    save_training_state,
    save_weights,
    write_json,
)
from .datasets.base import DetectionDataset
from .datasets.loader import Loader
from .datasets.sampling import Repeated, RepeatFactor, Sampler
from .datasets.transforms import Flip, Preprocessing, Resize, Transform
from .doctor import versions
from .errors import NonFiniteLoss, RunError, require_same_classes
from .evaluate import carries_splits, default_workers, score
from .models.recipe import Recipe, Sampling, Schedule
from .optimization import AveragedWeights, lr_factor, make_optimizer
from .reporting import MetricsLog, Progress, draw_curves, draw_examples, headline, say

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


def fit(
    dataset: Any,
    model: Any,
    *,
    validation: DetectionDataset | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    ema_decay: float | None = None,
    patience: int | None = None,
    recipe: Recipe | None = None,
    devices: int | str | list[int] = "auto",
    nodes: int = 1,
    strategy: str = "auto",
    workers: int | None = None,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    resume: str | None = None,
    save_every: int = 500,
) -> Run:
    """Trains a detector by its recipe, scores it after every epoch, and keeps the best and the last weights.

    Args:
        dataset: a DetectionDataset; where it carries splits, ``train`` is learnt from and ``val`` scored.
        model: a detector, a name of the zoo (the head gets the dataset's classes), or a Run to start from.
        validation: what to score instead.
        epochs, batch_size (images per device and pass), precision (``32``, ``bf16`` or ``16``), ema_decay: instead of
            the recipe's. ``accumulate`` passes make one step.
        lr: learning rate at this training's total batch size; by default the recipe's, scaled linearly with the total
            batch size (Goyal et al., "Accurate, Large Minibatch SGD", section 2.1).
        patience: stop when the main figure has not risen for so many epochs.
        recipe: instead of the model's own.
        devices, nodes, strategy: as Lightning Fabric takes them.
        workers: processes that load images, by default one a core, eight at most.
        seed: decides order, augmentation and everything drawn inside the model.
        out: run folder; by default ``runs/<model>``, with a number where that is taken.
        resume: ``auto`` goes on from the run folder's last state where there is one.
        save_every: steps between saved states, besides the one after every epoch.

    Returns:
        The run, with its best weights.

    Raises:
        ClassMismatch: when model and dataset do not name the same classes.
        NonFiniteLoss: when a loss term becomes NaN or infinite.
        RunError: when ``out`` holds another run, or the run to resume is of another training.
        KeyboardInterrupt, SystemExit: on SIGINT or SIGTERM, after the state was saved.
    """
    train, scored_on = training_splits(dataset, validation)
    if isinstance(model, str) and not Path(model).exists():
        from . import models

        published = models.find_recipe(model).weights is not None
        model = models.create(model, num_classes=train, weights="published" if published else None)
    trained = load(model)
    recipe, detector = recipe or trained.recipe, trained.model
    require_fitting(trained, train.classes)
    if scored_on is not None:
        require_same_classes(tuple(train.classes), len(train.classes), scored_on.classes)
    detector.classes = tuple(train.classes)  # type: ignore[assignment]
    if len(train) == 0:
        raise RunError("the training set has no images")
    require_readable(recipe, train)

    fabric = make_fabric(recipe, precision, devices, nodes, strategy)
    fabric.launch()
    workers = default_workers() if workers is None else workers
    loader = Loader(
        train,
        batch_size=recipe.images_per_device if batch_size is None else batch_size,
        collate=Collate.of(recipe),
        transforms=recipe.train_transforms or default_transforms(recipe.preprocessing),
        sampler=samplers(recipe.sampling) or None,
        shuffle=True,
        group_by_aspect_ratio=True,
        seed=seed,
        workers=workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    plan = make_plan(
        recipe, loader, fabric, epochs=epochs, accumulate=accumulate, lr=lr, ema_decay=ema_decay, seed=seed
    )
    found = run_folder(out, recipe.name, resume) if fabric.is_global_zero else None
    folder, resumed = fabric.broadcast(found)  # type: ignore[misc]
    manifest = describe(recipe, plan, train, detector)
    if resumed:
        require_same_training(folder, manifest)
    elif fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MANIFEST, manifest)
    if fabric.is_global_zero:
        tell(recipe, plan, train, scored_on, folder)

    if recipe.sync_batch_norm and fabric.world_size > 1:
        detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    training = Training(fabric, detector, recipe, plan, folder)
    if resumed:
        training.restore()
    log = MetricsLog(folder, training.step) if fabric.is_global_zero else None
    progress = Progress(plan.steps, plan.total_batch_size, start=training.step, shown=fabric.is_global_zero)
    with Interruption(fabric) as interruption:
        while training.epoch < plan.epochs and not (patience and training.epochs_without_gain >= patience):
            loader.set_epoch(training.epoch, start_batch=(training.step - training.epoch_start) * accumulate)
            for group in grouped(loader, accumulate):
                losses = training.train_step([batch.to(fabric.device) for batch in group])
                progress.show(training.step, f"epoch {training.epoch + 1}/{plan.epochs}", losses)
                if log is not None and training.step % plan.log_every == 0:
                    log.step(training.step, training.epoch + 1, {"lr": training.lr, **losses})
                if training.step % save_every == 0:
                    training.save()
                if interruption.wanted():
                    training.save()
                    interruption.leave(training.step)
            report = None
            if scored_on is not None:
                report = score(scored_on, training.scored, recipe, loader.batch_size, workers, fabric)
            better = training.end_epoch(None if report is None else report[report.main])
            if log is not None:
                training.keep_weights(train, better)
                if report is not None:
                    log.report(training.step, training.epoch, report)
                    progress.note(f"epoch {training.epoch}: {headline(report)}{', the best so far' if better else ''}")
                draw_curves(folder)
            training.save()
    run = Run(folder, model=detector)
    if log is not None:
        log.close()
        draw_examples(scored_on or train, run.trained, folder / "predictions")
    fabric.barrier()
    return run


class Losses(nn.Module):
    """A detector as Fabric wraps it: one batch in, loss terms out."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.detector(batch.images, batch.targets)


class Training:
    """What changes while training: weights, optimizer, and how far it has come."""

    def __init__(self, fabric: Fabric, detector: nn.Module, recipe: Recipe, plan: Plan, folder: Path) -> None:
        self.fabric, self.detector, self.recipe, self.plan, self.folder = fabric, detector, recipe, plan, folder
        detector.to(fabric.device)
        self.averaged = None if plan.ema_decay is None else AveragedWeights(detector, plan.ema_decay)
        self.optimizer = make_optimizer(detector, recipe.optimizer, plan.lr)
        self.network, self.fabric_optimizer = fabric.setup(Losses(detector), self.optimizer)
        self.step = 0
        self.epoch = 0
        self.epoch_start = 0
        self.best: float | None = None
        self.epochs_without_gain = 0
        self.lr = 0.0

    @property
    def scored(self) -> nn.Module:
        """The detector that is scored and kept: the averaged one where there is one."""
        return self.detector if self.averaged is None else self.averaged.model

    def train_step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One step of the optimizer over some batches; the mean of every loss term, and their sum as ``loss``."""
        plan, fabric = self.plan, self.fabric
        factor = lr_factor(plan.schedule, self.step, plan.steps, self.epoch, plan.warmup_steps)
        self.lr = plan.lr * factor
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        # What the model draws is a function of the step, so that a resumed training draws the same.
        torch.manual_seed((plan.seed * 1_000_003 + self.step) * 4_099 + fabric.global_rank)
        self.network.train()
        self.fabric_optimizer.zero_grad()
        means: dict[str, float] = {}
        for i, batch in enumerate(batches):
            with fabric.no_backward_sync(self.network, enabled=i + 1 < len(batches)):
                losses = self.network(batch)
                total = torch.stack([term.float() for term in losses.values()]).sum()
                values = torch.stack([total, *(term.float() for term in losses.values())]).detach()
                self._require_finite(values, list(losses), batch)
                fabric.backward(total / len(batches))
            for name, value in zip(("loss", *losses), values.tolist()):
                means[name] = means.get(name, 0.0) + value / len(batches)
        if self.recipe.optimizer.clip_norm is not None:
            # Half precision finds infinite gradients itself: it leaves the step out and lowers its scale.
            half = plan.precision == "16-mixed"
            means["gradient_norm"] = float(
                fabric.clip_gradients(
                    self.network,
                    self.fabric_optimizer,
                    max_norm=self.recipe.optimizer.clip_norm,
                    error_if_nonfinite=not half,
                )  # type: ignore[arg-type]
            )
        self.fabric_optimizer.step()
        self.step += 1
        if self.averaged is not None:
            self.averaged.update(self.detector, self.step)
        return means

    def _require_finite(self, values: Tensor, names: Sequence[str], batch: Batch) -> None:
        bad = [name for name, value in zip(names, values[1:].tolist()) if not math.isfinite(value)]
        if self.fabric.world_size > 1:
            flags = self.fabric.all_reduce(torch.tensor(float(bool(bad)), device=values.device), reduce_op="sum")
            if flags and not bad:  # type: ignore[truth-value]
                raise NonFiniteLoss(f"step {self.step}: a loss term of another process is not finite")
        if bad:
            told = ", ".join(f"{name} = {value}" for name, value in zip(names, values[1:].tolist()) if name in bad)
            raise NonFiniteLoss(
                f"step {self.step} (epoch {self.epoch + 1}): {told}; images {', '.join(map(str, batch.image_ids))}; "
                f"learning rate {self.lr:.3g}, precision {self.plan.precision}. "
                f"The last state in {self.folder} is from before; a lower lr, longer warm-up, gradient clipping or "
                "precision='32' are what usually helps"
            )

    def end_epoch(self, figure: float | None) -> bool:
        """Counts an epoch; whether its main figure is the best so far (without a figure every epoch is)."""
        self.epoch += 1
        self.epoch_start = self.step
        better = figure is None or self.best is None or figure > self.best
        if figure is not None:
            self.best = figure if better else self.best
            self.epochs_without_gain = 0 if better else self.epochs_without_gain + 1
        return better

    def keep_weights(self, dataset: DetectionDataset, better: bool) -> None:
        """Writes the weights for use."""
        for name in ("last", "best") if better else ("last",):
            save_weights(
                self.folder / f"{name}.safetensors",
                self.scored,
                recipe=self.recipe,
                classes=dataset.classes,
                category_ids=dataset.category_ids,
            )

    def save(self) -> None:
        """Writes everything that training goes on from."""
        if self.fabric.is_global_zero:
            state = {
                "model": self.detector.state_dict(),
                "averaged": None if self.averaged is None else self.averaged.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "step": self.step,
                "epoch": self.epoch,
                "epoch_start": self.epoch_start,
                "best": self.best,
                "epochs_without_gain": self.epochs_without_gain,
            }
            save_training_state(self.folder / TRAINING_STATE, state)
        self.fabric.barrier()

    def restore(self) -> None:
        """Goes back to the last saved state."""
        path = self.folder / TRAINING_STATE
        state = load_training_state(path)
        load_state(self.detector, state["model"], source=str(path))
        if self.averaged is not None:
            load_state(self.averaged.model, state["averaged"], source=str(path))
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.epoch, self.epoch_start = state["step"], state["epoch"], state["epoch_start"]
        self.best = state["best"]
        self.epochs_without_gain = state["epochs_without_gain"]


class Interruption:
    """Turns SIGINT and SIGTERM into a wish to stop at the next step; a second one stops at once."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.signal: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._wish)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _wish(self, number: int, frame: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def wanted(self) -> bool:
        """Whether any process was asked to stop; all processes agree."""
        if self.fabric.world_size == 1:
            return self.signal is not None
        wish = torch.tensor(float(self.signal or 0), device=self.fabric.device)
        largest = int(self.fabric.all_reduce(wish, reduce_op="max"))  # type: ignore[arg-type]
        self.signal = largest or None
        return bool(largest)

    def leave(self, step: int) -> NoReturn:
        """Ends the training as the signal asks."""
        say(f"stopped at step {step}; resume='auto' goes on from there")
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


def training_splits(
    dataset: Any, validation: DetectionDataset | None
) -> tuple[DetectionDataset, DetectionDataset | None]:
    """What is learnt from and what is scored: ``train`` and ``val`` of a dataset that carries splits."""
    if not carries_splits(dataset):
        return dataset, validation
    return dataset.train, dataset.val if validation is None else validation


def default_transforms(preprocessing: Preprocessing) -> tuple[Transform, ...]:
    """For a recipe without training transforms: the test size, and a flip half of the time."""
    if preprocessing.size is None:
        return (Flip(),)
    return Resize((preprocessing.size,), preprocessing.keep_ratio), Flip()


def samplers(sampling: Sampling) -> list[Sampler]:
    """The recipe's sampling as the loader takes it."""
    found: list[Sampler] = []
    if sampling.repeat_factor is not None:
        found.append(RepeatFactor(sampling.repeat_factor))
    if sampling.repeats != 1:
        found.append(Repeated(sampling.repeats))
    return found


def grouped(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """``count`` batches at a time; the last group may be smaller."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, count)):
        yield group


def make_fabric(
    recipe: Recipe, precision: str | None, devices: int | str | list[int], nodes: int, strategy: str
) -> Fabric:
    """Fabric in the wished precision; the recipe's half precision becomes single where there is no GPU."""
    wished = recipe.precision if precision is None else precision
    if wished not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, found {wished!r}")
    if PRECISIONS[wished] == "16-mixed" and not torch.cuda.is_available():
        if precision is not None:
            raise ValueError("precision: 16 needs a GPU; expected 32 or bf16 here")
        say("no GPU: training in precision 32 instead of the recipe's 16")
        wished = "32"
    return Fabric(devices=devices, num_nodes=nodes, strategy=strategy, precision=PRECISIONS[wished])  # type: ignore[arg-type]


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
    for name, number in (("epochs", epochs), ("accumulate", accumulate), ("lr", lr)):
        if number is not None and not number > 0:
            raise ValueError(f"{name}: expected a positive number, found {number!r}")
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
    falls = f"times {plan.schedule.drop_factor:g} after epochs {', '.join(map(str, plan.schedule.drops))}"
    say(
        f"batch {plan.total_batch_size} ({plan.batch_size} images x {plan.accumulate} passes x {plan.world_size} "
        f"devices), precision {plan.precision}"
    )
    say(
        f"learning rate {plan.lr:.4g} (the recipe's {recipe.optimizer.lr:.4g} is for a batch of {meant}), "
        f"warm-up {plan.warmup_steps} steps, then {'a cosine' if plan.schedule.decay == 'cosine' else falls}"
    )
    say(f"everything goes to {folder}")


def run_folder(out: str | os.PathLike | None, name: str, resume: str | None) -> tuple[Path, bool]:
    """The run folder and whether a training is resumed in it.

    Without ``out`` it is ``runs/<name>``, with a number where that is taken; resuming takes the newest of these.
    """
    if resume not in (None, "auto"):
        raise ValueError(f"resume: expected None or 'auto', found {resume!r}")
    if out is not None:
        folder = Path(out)
    else:
        first = Path("runs") / name
        numbered = itertools.chain([first], (first.with_name(f"{name}-{i}") for i in itertools.count(2)))
        taken = list(itertools.takewhile(Path.exists, numbered))
        free = first if not taken else first.with_name(f"{name}-{len(taken) + 1}")
        folder = taken[-1] if taken and resume else free
    if not (folder / MANIFEST).exists():
        return folder, False
    if resume is None:
        raise RunError(f"{folder}: holds a run; resume='auto' goes on with it, another out= begins anew")
    return folder, (folder / TRAINING_STATE).exists()


def describe(recipe: Recipe, plan: Plan, train: DetectionDataset, detector: nn.Module) -> dict[str, Any]:
    """The manifest of a run: what was trained, on what, how, and with which versions."""
    return {
        "model": {"name": recipe.name, "type": type(detector).__name__, "num_classes": len(train.classes)},
        "classes": list(train.classes),
        "category_ids": [int(i) for i in train.category_ids],
        "dataset": {"type": type(train).__name__, "images": len(train), "fingerprint": train.fingerprint},
        "options": asdict(plan),
        "recipe": {field.name: plain(getattr(recipe, field.name)) for field in fields(recipe)},
        "versions": versions(),
    }


def plain(value: Any) -> Any:
    """A value as JSON can hold it; dataclasses keep their name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value).split(" at 0x")[0]


def require_same_training(folder: Path, manifest: dict[str, Any]) -> None:
    """Nothing where the folder's training is the one described, else RunError that says what differs."""
    # Through JSON, so that tuples and lists compare equal.
    old, new = read_manifest(folder), json.loads(json.dumps(manifest))
    for either in (old, new):
        # Of the recipe what decides over the training; the rest may change from version to version.
        recipe = either.get("recipe") or {}
        decides = ("preprocessing", "train_transforms", "sampling", "optimizer")
        either["recipe"] = {name: recipe.get(name) for name in decides}
    for part in ("model", "classes", "category_ids", "dataset", "options", "recipe"):
        if old.get(part) != new[part]:
            if isinstance(new[part], dict):
                names = [name for name in new[part] if old[part].get(name) != new[part][name]]
                told = "; ".join(f"{n} was {old[part].get(n)!r:.300}, is {new[part][n]!r:.300}" for n in names)
            else:
                told = f"was {old[part]!r:.200}, is {new[part]!r:.200}"
            raise RunError(f"{folder}: cannot be resumed, its {part} differs: {told}")
