"""Training: one loop, readable from top to bottom.

Devices, nodes, precision and strategies come from Lightning Fabric.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.profiler import record_function

from ..datasets.adapter import OnFault
from ..datasets.loader import Loader
from ..datasets.sampling import Sampler
from ..errors import RunError, require_count, require_same_classes
from ..inference.batching import Collate, require_readable
from ..inference.running import default_workers, examples
from ..inference.scoring import scorable, score
from ..models.folding import in_standard_order
from ..models.recipe import Recipe
from ..opening import training_splits
from ..reports.curves import draw_curves
from ..reports.pictures import draw_examples
from ..reports.profile import Profiler
from ..reports.progress import Progress, say
from ..reports.text import headline
from ..results.files import write_json
from ..results.manifest import MANIFEST
from ..results.run import Run, load, require_fitting
from ..training.balance import EXPOSURE, expected_exposure, leaked, realized_exposure, tell_balance
from ..training.determinism import deterministic_algorithms
from ..training.interruption import Interruption
from ..training.loop import Training, grouped
from ..training.options import Optimization
from ..training.plan import Plan, default_transforms, make_fabric, make_plan, require_positive, samplers, tell
from ..training.ranks import Watch, ranks_here, share_cores
from ..training.readout import StepFigures
from ..training.record import describe, plain, require_same_training, run_folder
from ..training.saving import Saving
from ..training.tracking import MetricsLog


def fit(
    dataset: Any,
    model: Any,
    *,
    validation: Any = None,
    on_fault: OnFault = "raise",
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: str | None = None,
    schedule: str | None = None,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    ema_decay: float | None = None,
    patience: int | None = None,
    recipe: Recipe | None = None,
    devices: int | str | list[int] = "auto",
    nodes: int = 1,
    strategy: str = "auto",
    workers: int | None = None,
    sampling: str | Mapping[str, float] | Sampler = "recipe",
    leaks: str = "warn",
    seed: int = 0,
    deterministic: bool = False,
    out: str | os.PathLike | None = None,
    resume: str | None = None,
    save_every: int = 500,
    save_minutes: float | None = None,
    keep_last: int = 2,
    keep_best: int = 1,
    profile: bool = False,
) -> Run:
    """Trains a detector by its recipe, scores it after every epoch, and keeps the best and the last weights.

    Args:
        dataset: a path, a dataset, or a list of these, as of ``sdk.open``; where it carries splits, ``train`` is learnt
            from and ``val`` scored.
        model: a detector, a name of the zoo (the head gets the dataset's classes), a Run to start from, or a ``.pth``
            checkpoint of MMDetection (classes that the dataset has too are kept).
        validation: what to score instead. on_fault: ``raise``, ``skip`` or ``repair`` broken annotations.
        epochs, batch_size (images per device and pass), precision (``32``, ``bf16`` or ``16``), ema_decay: instead of
            the recipe's. ``accumulate`` passes make one step.
        lr: learning rate at this training's total batch size; by default the recipe's, scaled linearly with the total
            batch size (Goyal et al., "Accurate, Large Minibatch SGD", section 2.1).
        optimizer (``sgd``, ``adam`` or ``adamw``; another than the recipe's needs ``lr``), schedule (``step``,
            ``cosine`` or ``flat``), weight_decay, clip_norm (largest norm of the gradient): instead of the recipe's.
        patience: stop when the main figure has not risen for so many epochs.
        recipe: instead of the model's own.
        devices, nodes, strategy: as Lightning Fabric takes them.
        sampling: ``recipe``, ``uniform``, ``class_balanced``, ``repeat_factor`` or ``instance_repeat_factor`` (with a
            threshold as in ``repeat_factor=0.01``), ``with_objects``; shares of the showings by class name; or a
            sampler. What each class is shown in an epoch is said before training and stands in ``exposure.json``.
        leaks: what images do that are equal byte for byte in training and validation: ``warn``, ``raise`` or
            ``ignore``. ``sdk.check(dataset, leaks=True)`` finds near duplicates too.
        workers: processes that load images, by default one a core, eight at most.
        seed: decides fresh weights, order, augmentation and everything drawn inside the model.
        deterministic: equal weights twice, also on a GPU; an operation that has no such way raises RuntimeError.
        out: run folder; by default ``runs/<model>``, with a number where that is taken.
        resume: ``auto`` goes on from the run folder's last state where there is one.
        save_every, save_minutes: steps or minutes between saved states, besides the one after every epoch.
        keep_last, keep_best: how many of the newest states stay, and how many epochs' weights, those that scored best.
        profile: watch some steps, and write where their time goes into ``profile`` in the run folder: a table, and a
            trace that https://ui.perfetto.dev opens.

    Returns:
        The run, with its best weights.

    Raises:
        ClassMismatch: when model and dataset do not name the same classes.
        NonFiniteLoss: when a loss term becomes NaN or infinite.
        RunError: when ``out`` holds another run, or the run to resume is of another training.
        KeyboardInterrupt, SystemExit: on SIGINT or SIGTERM, after the state was saved.
    """
    require_positive(epochs=epochs, accumulate=accumulate, lr=lr)
    for name, number, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if number is not None:
            require_count(name, number, least)
    optimization = Optimization(optimizer=optimizer, schedule=schedule, weight_decay=weight_decay, clip_norm=clip_norm)
    saving = Saving(save_every, save_minutes, keep_last, keep_best)
    train, scored_on = training_splits(dataset, validation, on_fault)
    scored_on = scorable(scored_on)
    if isinstance(model, str) and not Path(model).exists():
        from .. import models

        published = models.find_recipe(model).weights is not None
        model = models.create(model, num_classes=train, weights="published" if published else None, seed=seed)
    elif isinstance(model, (str, os.PathLike)) and Path(model).suffix == ".pth":
        from .. import models

        model = models.from_mmdetection(model, num_classes=train, seed=seed)
    trained = load(model)
    recipe, detector = optimization.applied_to(recipe or trained.recipe, lr), trained.model
    require_fitting(trained, train.classes)
    if scored_on is not None:
        require_same_classes(tuple(train.classes), len(train.classes), scored_on.classes)
    detector.classes = tuple(train.classes)  # type: ignore[assignment]
    if len(train) == 0:
        raise RunError("the training set has no images")
    require_readable(recipe, train)
    warning = leaked(train, scored_on, leaks)
    chosen = samplers(recipe.sampling, sampling, train)

    fabric = make_fabric(recipe, precision, devices, nodes, strategy)
    fabric.launch()
    share_cores(fabric)
    workers = default_workers(ranks_here(fabric)) if workers is None else workers
    loader = Loader(
        train,
        batch_size=recipe.images_per_device if batch_size is None else batch_size,
        collate=Collate.of(recipe),
        transforms=recipe.train_transforms or default_transforms(recipe.preprocessing),
        sampler=chosen or None,
        shuffle=True,
        group_by_aspect_ratio=True,
        seed=seed,
        workers=workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        pin_memory=fabric.device.type == "cuda",
        passes=accumulate,
    )
    plan = make_plan(
        recipe, loader, fabric, epochs=epochs, accumulate=accumulate, lr=lr, ema_decay=ema_decay, seed=seed
    )
    found = run_folder(out, recipe.name, resume) if fabric.is_global_zero else None
    folder, resumed = fabric.broadcast(found)  # type: ignore[misc]
    manifest = {**describe(recipe, plan, train, detector), "sampling": plain(sampling)}
    changes = require_same_training(folder, manifest) if resumed else []
    # No process writes before all have compared.
    fabric.barrier()
    if fabric.is_global_zero and (changes or not resumed):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MANIFEST, manifest)
        for change in changes:
            say(f"resumed with {change}")
    if fabric.is_global_zero:
        tell(recipe, plan, train, scored_on, folder)
        planned = expected_exposure(train, chosen, seed)
        tell_balance(train, scored_on, planned)
        if warning is not None:
            say(warning)
        write_json(folder / EXPOSURE, {"planned": planned.to_dict()})

    if recipe.sync_batch_norm and fabric.world_size > 1:
        if fabric.device.type == "cpu":
            say("batch statistics are not shared between processes on CPUs: each normalizes by its own images")
        else:
            detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    training = Training(fabric, detector, recipe, plan, folder, saving)
    if resumed:
        training.restore()
    log = MetricsLog(folder, training.step) if fabric.is_global_zero else None
    progress = Progress(plan.steps, plan.total_batch_size, start=training.step, shown=fabric.is_global_zero)
    profiler = Profiler(folder / "profile" if profile and fabric.is_global_zero else None)
    exact = deterministic_algorithms(deterministic)
    with Watch(fabric), exact, Interruption(fabric) as interruption, progress, profiler:
        while training.epoch < plan.epochs and not (patience and training.epochs_without_gain >= patience):
            loader.set_epoch(training.epoch, start_batch=(training.step - training.epoch_start) * accumulate)
            for group in profiler.steps(grouped(loader, accumulate)):
                with record_function("to device"):
                    group = [batch.to(fabric.device, non_blocking=True) for batch in group]
                training.train_step(group)
                with record_function("figures"):
                    tell_steps(training.finished(), progress, log, plan)
                stop, save = interruption.agreed(training.save_is_due())
                if save or stop:
                    tell_steps(training.finished(wait=True), progress, log, plan)
                    training.save()
                if stop:
                    training.finish_saving()
                    interruption.leave(training.step)
            tell_steps(training.finished(wait=True), progress, log, plan)
            report, usable = None, training.usable()
            if scored_on is not None:
                report = score(scored_on, usable, recipe, loader.batch_size, workers, fabric)
            better = training.end_epoch(None if report is None else report[report.main])
            if log is not None:
                training.keep_weights(usable, train, better)
                if report is not None:
                    log.report(training.step, training.epoch, report)
                    say(f"epoch {training.epoch}: {headline(report)}{', the best so far' if better else ''}")
                draw_curves(folder)
            training.save()
        training.finish_saving()
    run = Run(folder, model=in_standard_order(training.whole or detector))
    if log is not None:
        log.close()
        orders = [loader.order(epoch) for epoch in range(training.epoch)]
        write_json(folder / EXPOSURE, {"planned": planned.to_dict(), "realized": realized_exposure(train, orders)})
        draw_examples(examples(scored_on or train, run.trained), train.classes, folder / "predictions")
    fabric.barrier()
    return run


def tell_steps(steps: Iterable[StepFigures], progress: Progress, log: MetricsLog | None, plan: Plan) -> None:
    """Shows steps that are done, and writes those down that the plan wants in the metrics."""
    for done in steps:
        progress.show(done.step, f"epoch {done.epoch}/{plan.epochs}", done.losses)
        if log is not None and done.step % plan.log_every == 0:
            log.step(done.step, done.epoch, {"lr": done.lr, **done.losses})
