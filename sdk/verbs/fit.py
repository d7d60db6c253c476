"""Training: one loop, readable from top to bottom.

Devices, nodes, precision and strategies come from Lightning Fabric.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn
from torch.profiler import record_function

from ..datasets.loader import Loader
from ..errors import RunError, require_same_classes
from ..inference.batching import Collate, require_readable
from ..inference.running import default_workers, examples
from ..inference.scoring import scorable, score
from ..models.folding import in_standard_order
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
from ..training.options import Options, takes
from ..training.plan import Plan, default_transforms, make_fabric, make_plan, samplers, tell
from ..training.ranks import Watch, ranks_here, share_cores
from ..training.readout import StepFigures
from ..training.record import describe, require_same_training, run_folder
from ..training.tracking import MetricsLog


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
        The run, with its best weights.

    Raises:
        ClassMismatch: when model and dataset do not name the same classes.
        NonFiniteLoss: when a loss term becomes NaN or infinite.
        RunError: when ``out`` holds another run, or the run to resume is of another training.
        TypeError, ValueError: when an option is unknown, or is given what it cannot be.
        KeyboardInterrupt, SystemExit: on SIGINT or SIGTERM, after the state was saved.
    """
    train, scored_on = training_splits(dataset, options.validation, options.on_fault)
    scored_on = scorable(scored_on)
    if options.backbone is not None:
        from ..models.zoo import name_on

        model = name_on(model, options.backbone)
    if isinstance(model, str) and not Path(model).exists():
        from .. import models

        start = models.find_recipe(model).starting_weights
        model = models.create(model, num_classes=train, weights=start, seed=options.seed)
    elif isinstance(model, (str, os.PathLike)) and Path(model).suffix == ".pth":
        from .. import models

        model = models.from_mmdetection(model, num_classes=train, seed=options.seed)
    trained = load(model)
    recipe, detector = options.applied_to(options.recipe or trained.recipe), trained.model
    require_fitting(trained, train.classes)
    if scored_on is not None:
        require_same_classes(tuple(train.classes), len(train.classes), scored_on.classes)
    detector.classes = tuple(train.classes)  # type: ignore[assignment]
    if len(train) == 0:
        raise RunError("the training set has no images")
    require_readable(recipe, train)
    warning = leaked(train, scored_on, options.leaks)
    chosen = samplers(recipe.sampling, options.sampling, train)

    fabric = make_fabric(recipe, options)
    fabric.launch()
    share_cores(fabric)
    workers = default_workers(ranks_here(fabric)) if options.workers is None else options.workers
    loader = Loader(
        train,
        batch_size=options.batch_size or recipe.images_per_device,
        collate=Collate.of(recipe),
        transforms=recipe.train_transforms or default_transforms(recipe.preprocessing),
        sampler=chosen or None,
        shuffle=True,
        group_by_aspect_ratio=True,
        seed=options.seed,
        workers=workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        pin_memory=fabric.device.type == "cuda",
        passes=options.accumulate,
    )
    plan = make_plan(recipe, loader, fabric, options)
    found = run_folder(options.out, recipe.name, options.resume) if fabric.is_global_zero else None
    folder, resumed = fabric.broadcast(found)  # type: ignore[misc]
    manifest = describe(recipe, plan, train, detector, options)
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
        planned = expected_exposure(train, chosen, options.seed)
        tell_balance(train, scored_on, planned)
        if warning is not None:
            say(warning)
        write_json(folder / EXPOSURE, {"planned": planned.to_dict()})

    if recipe.sync_batch_norm and fabric.world_size > 1:
        if fabric.device.type == "cpu":
            say("batch statistics are not shared between processes on CPUs: each normalizes by its own images")
        else:
            detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    training = Training(fabric, detector, recipe, plan, folder, options)
    if resumed:
        training.restore()
    log = MetricsLog(folder, training.step) if fabric.is_global_zero else None
    progress = Progress(plan.steps, plan.total_batch_size, start=training.step, shown=fabric.is_global_zero)
    profiler = Profiler(folder / "profile" if options.profile and fabric.is_global_zero else None)
    exact = deterministic_algorithms(options.deterministic)
    with Watch(fabric), exact, Interruption(fabric) as interruption, progress, profiler:
        while training.epoch < plan.epochs and not training.out_of_patience(options.patience):
            loader.set_epoch(training.epoch, start_batch=(training.step - training.epoch_start) * options.accumulate)
            for group in profiler.steps(grouped(loader, options.accumulate)):
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
