"""Training: one loop, readable from top to bottom.

Devices, nodes, precision and strategies come from Lightning Fabric.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn
from torch.profiler import record_function

from ..datasets.combining import only_classes
from ..datasets.loader import Loader
from ..errors import RunError, require_same_classes
from ..inference.batching import Collate, require_readable
from ..inference.running import default_workers, examples
from ..inference.scoring import require_figure, scorable, score
from ..models.folding import in_standard_order
from ..models.recipe import Recipe
from ..opening import training_splits
from ..reports.curves import draw_curves
from ..reports.pictures import draw_batch, draw_examples
from ..reports.profile import Profiler
from ..reports.progress import Progress, console, say
from ..reports.text import headline
from ..results.files import write_json
from ..results.manifest import MANIFEST
from ..results.run import Run, load, require_fitting
from ..training.anchors import anchor_fits, fit_anchors, tell_anchors
from ..training.augmentation import require_transforms, with_images
from ..training.balance import EXPOSURE, expected_exposure, leaked, realized_exposure, tell_balance
from ..training.callbacks import Callback, require_callbacks
from ..training.determinism import deterministic_algorithms
from ..training.freezing import Frozen
from ..training.interruption import Clock, Interruption
from ..training.loop import Training, grouped
from ..training.memory import estimated_memory, free_memory, largest_batch, tell_memory
from ..training.options import Options, takes
from ..training.plan import Plan, averaging, make_fabric, make_plan, samplers, tell, tell_frozen
from ..training.range_test import found_lr
from ..training.ranks import Watch, ranks_here, share_cores
from ..training.readout import StepFigures
from ..training.record import DRAWN, describe, require_same_training, run_folder, tell_differences
from ..training.tracking import MetricsLog, made_loggers


@takes(Options)
def fit(dataset: Any, model: Any, options: Options) -> Run:
    """Trains a detector by its recipe, scores it after every epoch, and keeps the best and the last weights.

    Args:
        dataset: a path, a dataset, or a list of these, as of ``sdk.open``; where it carries splits, ``train`` is learnt
            from and ``val`` scored.
        model: a detector, a name of the zoo (the head gets the dataset's classes), a Run to start from, or a ``.pth``
            checkpoint of MMDetection (classes that the dataset has too are kept).
        options: given as keywords of the same names; those that are not are the recipe's, or chosen by the machine.
            What each class is shown in an epoch is said before training and stands in ``exposure.json``.

    Returns:
        The run, with its best weights; with ``dry_run`` None.

    Raises:
        ClassMismatch: when model and dataset do not name the same classes.
        NonFiniteLoss: when a loss term becomes NaN or infinite.
        RunError: when ``out`` holds another run, or the run to resume is of another training.
        TypeError, ValueError: when an option is unknown, or is given what it cannot be.
        KeyboardInterrupt, SystemExit: on SIGINT or SIGTERM, after the state was saved.
    """
    given = {"dataset": dataset, "model": model}
    require_callbacks(options.callbacks)
    require_transforms(options.transforms)
    loggers = made_loggers(options.loggers)
    train, scored_on = training_splits(dataset, options.validation, options.on_fault)
    if options.classes is not None:
        train = only_classes(train, options.classes)
        scored_on = None if scored_on is None else only_classes(scored_on, options.classes)
    scored_on = scorable(scored_on)
    if options.backbone is not None:
        from ..models.zoo import name_on

        model = name_on(model, options.backbone)
    if isinstance(model, str) and not Path(model).exists():
        from .. import models

        start = models.find_recipe(model).starting_weights if options.weights is None else options.weights
        start = None if start == "none" else start
        model = models.create(model, num_classes=train, weights=start, seed=options.seed)
    elif isinstance(model, (str, os.PathLike)) and Path(model).suffix == ".pth":
        from .. import models

        model = models.from_mmdetection(model, num_classes=train, seed=options.seed)
    elif options.weights is not None:
        raise RunError("weights: is for names of the zoo; this model has weights")
    trained = load(model)
    if options.monitor is not None:
        require_figure(options.monitor, scored_on, trained)
    recipe, detector = options.applied_to(options.recipe or trained.recipe), trained.model
    recipe = with_images(recipe, options.image_size, options.transforms)
    require_fitting(trained, train.classes)
    if scored_on is not None:
        require_same_classes(tuple(train.classes), len(train.classes), scored_on.classes)
    detector.classes = tuple(train.classes)  # type: ignore[assignment]
    if len(train) == 0:
        raise RunError("the training set has no images")
    require_readable(recipe, train)
    frozen = Frozen(detector, options.freeze)
    if options.anchors == "auto":
        fits = fit_anchors(detector, train, recipe.preprocessing)
    else:
        fits = anchor_fits(detector, train, recipe.preprocessing)
    warning = leaked(train, scored_on, options.leaks)
    chosen = samplers(recipe.sampling, options.sampling, train)

    fabric = make_fabric(recipe, options)
    fabric.launch()
    share_cores(fabric)
    workers = default_workers(ranks_here(fabric)) if options.workers is None else options.workers
    loaded = partial(
        Loader,
        train,
        collate=Collate.of(recipe),
        transforms=recipe.train_transforms,
        sampler=chosen or None,
        shuffle=True,
        group_by_aspect_ratio=True,
        seed=options.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        passes=options.accumulate,
    )
    batch_size = options.batch_size or recipe.images_per_device
    if options.find_batch_size:
        batch_size = fitting_batch_size(fabric, detector, loaded(batch_size=2), recipe, options)
    loader = loaded(batch_size=batch_size, workers=workers, pin_memory=fabric.device.type == "cuda")
    plan = make_plan(recipe, loader, fabric, options)
    if options.find_lr:
        plan = replace(plan, lr=found_lr(fabric, detector, loader, recipe, plan))
    found = run_folder(options.out, recipe.name, options.resume) if fabric.is_global_zero else None
    folder, resumed = fabric.broadcast(found)  # type: ignore[misc]
    manifest = describe(recipe, plan, train, detector, options, given)
    changes = require_same_training(folder, manifest) if resumed else []
    if fabric.is_global_zero and options.from_manifest is not None:
        tell_differences(Path(options.from_manifest), manifest)
    # No process writes before all have compared.
    fabric.barrier()
    if fabric.is_global_zero:
        for change in changes:
            say(f"{'resuming' if options.dry_run else 'resumed'} with {change}")
        tell(recipe, plan, train, scored_on, folder)
        tell_frozen(detector)
        tell_anchors(fits, options.anchors)
        planned = expected_exposure(train, chosen, options.seed)
        tell_balance(train, scored_on, planned)
        if warning is not None:
            say(warning)
    if options.dry_run:
        if fabric.is_global_zero:
            draw_first_batch(fabric, detector, loader, recipe, plan, folder / DRAWN)
        fabric.barrier()
        return None  # type: ignore[return-value]
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        if changes or not resumed:
            write_json(folder / MANIFEST, manifest)
        write_json(folder / EXPOSURE, {"planned": planned.to_dict()})

    if recipe.sync_batch_norm and fabric.world_size > 1:
        if fabric.device.type == "cpu":
            say("batch statistics are not shared between processes on CPUs: each normalizes by its own images")
        else:
            detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    training = Training(fabric, detector, recipe, plan, folder, options, frozen)
    if resumed:
        training.restore()
    own = [MetricsLog(), *loggers] if fabric.is_global_zero else []
    callbacks: list[Callback] = [*own, *options.callbacks]
    for callback in callbacks:
        callback.on_fit_start(training)
    progress = Progress(plan.steps, plan.total_batch_size, start=training.step, shown=fabric.is_global_zero)
    profiler = Profiler(folder / "profile" if options.profile and fabric.is_global_zero else None)
    exact = deterministic_algorithms(options.deterministic)
    interruption = Interruption(fabric, in_notebook=console().is_jupyter)
    clock = Clock(options.max_time)
    with Watch(fabric), exact, interruption, progress, profiler:
        while not training.is_over(options.patience):
            loader.set_epoch(training.epoch, start_batch=(training.step - training.epoch_start) * options.accumulate)
            left = -(-len(loader) // options.accumulate)
            for group in profiler.steps(grouped(loader, options.accumulate)):
                with record_function("to device"):
                    group = [batch.to(fabric.device, non_blocking=True) for batch in group]
                training.train_step(group)
                left -= 1
                with record_function("figures"):
                    tell_steps(training.finished(), progress, callbacks, training)
                if clock.is_up():
                    training.end(f"after {options.max_time:g} minutes")
                agreed = interruption.agreed(training.save_is_due(), training.ending is not None)
                if agreed.save or agreed.stop:
                    tell_steps(training.finished(wait=True), progress, callbacks, training)
                    training.save()
                if agreed.stop:
                    training.finish_saving()
                    interruption.leave(training.step)
                if agreed.end or training.step == plan.max_steps:
                    break
            tell_steps(training.finished(wait=True), progress, callbacks, training)
            if left == 0:
                training.end_epoch()
            agree_on_ending(training, interruption)
            # Until one is scored, the newest weights are the best.
            usable, better = training.usable(), training.best is None
            if scored_on is not None and (training.epoch % options.val_every == 0 or training.is_over(None)):
                report = score(scored_on, usable, recipe, loader.batch_size, workers, fabric)
                better = training.is_best(report[options.monitor or report.main])
                for callback in callbacks:
                    callback.on_validation(training, report)
                if fabric.is_global_zero:
                    say(f"epoch {training.current_epoch}: {headline(report)}{', the best so far' if better else ''}")
            if fabric.is_global_zero:
                training.keep_weights(usable, train, better)
                draw_curves(folder)
            for callback in callbacks:
                callback.on_epoch_end(training)
            agree_on_ending(training, interruption)
            training.save()
        training.finish_saving()
    if training.ending is not None and fabric.is_global_zero:
        say(f"ended at step {training.step} {training.ending}")
    run = Run(folder, model=in_standard_order(training.whole or detector))
    if fabric.is_global_zero:
        orders = [loader.order(epoch) for epoch in range(training.epoch)]
        write_json(folder / EXPOSURE, {"planned": planned.to_dict(), "realized": realized_exposure(train, orders)})
        draw_examples(examples(scored_on or train, run.trained), train.classes, folder / "predictions")
    for callback in callbacks:
        callback.on_fit_end(run)
    fabric.barrier()
    return run


def draw_first_batch(
    fabric: Fabric, detector: nn.Module, loader: Loader, recipe: Recipe, plan: Plan, path: Path
) -> None:
    """Draws the first batch as the detector sees it, and says how much memory a step on it takes."""
    batch = next(iter(loader))
    tell_memory(estimated_memory(fabric, detector, batch, recipe, plan.ema_decay is not None), fabric)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_batch(batch.images, batch.targets, recipe.preprocessing, loader.dataset.classes, path)
    say(f"a batch as the detector sees it: {path}; nothing was trained")


def fitting_batch_size(fabric: Fabric, detector: nn.Module, loader: Loader, recipe: Recipe, options: Options) -> int:
    """Images per device and pass for which the memory is enough, by that of a step on a first batch; said aloud.

    All processes take what fits the first one.
    """
    found = 0
    if fabric.is_global_zero:
        free = free_memory(fabric.device)
        if free is None:
            raise RunError(f"find_batch_size: {fabric.device} does not say how much memory is free; give batch_size")
        batch = next(iter(loader))
        memory = estimated_memory(fabric, detector, batch, recipe, averaging(recipe, options) is not None)
        found = min(largest_batch(memory, len(batch), free), 2 ** (len(loader.dataset).bit_length() - 1))
        say(f"batch_size: {found} images fit into the memory of {fabric.device}")
    return fabric.broadcast(found)


def agree_on_ending(training: Training, interruption: Interruption) -> None:
    """Ends the training in all processes where it is to end in one of them."""
    if interruption.agreed(False, training.ending is not None).end:
        training.end("as asked")


def tell_steps(
    steps: Iterable[StepFigures], progress: Progress, callbacks: Sequence[Callback], training: Training
) -> None:
    """Shows steps that are done, and tells the callbacks of them."""
    for done in steps:
        progress.show(done.step, f"epoch {done.epoch}/{training.plan.epochs}", done.losses)
        for callback in callbacks:
            callback.on_step(training, done)
