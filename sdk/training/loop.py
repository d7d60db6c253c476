"""What happens in a step, and what changes from step to step."""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.profiler import record_function

from ..datasets.base import DetectionDataset
from ..errors import NonFiniteLoss, RunError
from ..inference.batching import Batch
from ..models.folding import channels_last
from ..models.recipe import Recipe
from ..reports.progress import say
from ..results.files import named_errors, remove_unfinished, sync_folder
from ..results.state import TRAINING_STATE, make_room, newest_whole_state
from ..results.weights import load_state, save_weights
from . import sharding
from .failures import MOST_PARTS, FailedStep, bad_gradients, save_failed_step
from .freezing import Frozen
from .optimization import AveragedWeights, lay_out_alike, lr_factor, make_optimizer
from .options import Saving
from .plan import Plan
from .readout import MOST_UNREAD, LossTerms, StepFigures, UnreadStep
from .saving import StateWriter


class Losses(nn.Module):
    """A detector as Fabric wraps it: one batch in, loss terms out."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.detector(channels_last(batch.images), batch.targets)


class Training:
    """What changes while training: weights, optimizer, and how far it has come."""

    def __init__(
        self,
        fabric: Fabric,
        detector: nn.Module,
        recipe: Recipe,
        plan: Plan,
        folder: Path,
        saving: Saving | None = None,
        frozen: Frozen | None = None,
    ) -> None:
        self.fabric, self.detector, self.recipe, self.plan, self.folder = fabric, detector, recipe, plan, folder
        self.saving, self.frozen = saving or Saving(), frozen
        detector.to(fabric.device)
        self.sharded = isinstance(fabric.strategy, ModelParallelStrategy)
        if self.sharded or fabric.device.type == "cpu":
            # FSDP cuts weights where they lie in one order alone.
            layout = torch.contiguous_format if self.sharded else torch.channels_last
            detector.to(memory_format=layout)  # type: ignore[call-overload]
        self.averaged = None if plan.ema_decay is None else AveragedWeights(detector, plan.ema_decay)
        # Whole, for scoring and for use: processes that score different numbers of images must not wait for each other.
        self.whole = copy.deepcopy(detector) if self.sharded else None
        self.network = fabric.setup_module(Losses(detector))
        if self.sharded and self.averaged is not None:
            sharding.sharded(self.averaged.model, sharding.mesh_of(fabric))
        self.optimizer = make_optimizer(detector, recipe.optimizer, plan.lr, fused=not self.sharded)
        self.fabric_optimizer: Any = fabric.setup_optimizers(self.optimizer)
        self.writer = StateWriter(folder, self.saving.keep_last)
        self.step = 0
        self.epoch = 0
        self.epoch_start = 0
        self.best: float | None = None
        self.best_epochs: dict[int, float] = {}
        self.scorings_without_gain = 0
        self.ending: str | None = None
        self.lr = 0.0
        self.parts = 1
        self.half = plan.precision == "16-mixed"
        self.unread: deque[UnreadStep] = deque()
        # One, and not a number from the first step on that was not finite: every later loss is multiplied by it.
        self.intact = torch.ones((), device=fabric.device)

    def usable(self) -> nn.Module:
        """The detector that is scored and kept: the averaged one where there is one. All processes ask together."""
        latest = self.detector if self.averaged is None else self.averaged.model
        if self.fabric.world_size > 1:
            # Statistics are kept by each process of its own images; those of the first are scored and saved.
            sharding.share_buffers(latest)
        if self.whole is None:
            return latest
        self.whole.load_state_dict(sharding.whole_state(latest))
        return self.whole

    def train_step(self, batches: Sequence[Batch]) -> None:
        """One step of the optimizer over some batches, without waiting for the device; ``finished`` tells its figures.

        A batch for which the device has too little memory is worked off in halves, quarters or eighths, which are one
        step all the same. Where a loss or the gradient is not finite, the weights change neither in this step nor in
        any after it.
        """
        plan, fabric = self.plan, self.fabric
        factor = lr_factor(plan.schedule, self.step, plan.steps, self.epoch, plan.warmup_steps)
        self.lr = plan.lr * factor
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.network.train()
        if self.frozen is not None:
            self.frozen.keep_in_evaluation(self.detector)
        while True:
            # What the model draws is a function of the step, so that a resumed training draws the same.
            torch.manual_seed(step_seed(plan.seed, self.step, fabric.global_rank))
            self.fabric_optimizer.zero_grad()
            try:
                parts = self._backward([part for batch in batches for part in batch.split(self.parts)])
                break
            except torch.OutOfMemoryError as error:
                self._use_smaller_parts(error, batches)
        with record_function("gradient"):
            norm = self._finish_gradient()
        finite = torch.cat([part.means for part in parts]).isfinite().all()
        if not self.half:
            finite &= norm.isfinite()
        self.intact = torch.where(finite, self.intact, math.nan)
        if not self.half and not self.sharded:
            # Fused optimizers leave the step out on the device where this is one. Half precision finds infinite
            # gradients itself: it leaves the step out and lowers its scale.
            self.optimizer.found_inf = self.intact.isnan().float()  # type: ignore[attr-defined]
        with record_function("optimizer"):
            if not self.sharded or not self.intact.isnan():
                self.fabric_optimizer.step()
        self.unread.append(UnreadStep(self.step, self.epoch, self.lr, parts, norm))
        self.step += 1
        if self.averaged is not None:
            self.averaged.update(self.detector, self.step)

    def _backward(self, batches: Sequence[Batch]) -> list[LossTerms]:
        """Adds up the gradients of all batches."""
        parts = []
        images = sum(map(len, batches))
        for i, batch in enumerate(batches):
            with self.fabric.no_backward_sync(self.network, enabled=i + 1 < len(batches)):
                with record_function("forward"):
                    losses = self.network(batch)
                total = torch.stack([term.float() for term in losses.values()]).sum()
                own = torch.stack([total, *(term.float() for term in losses.values())]).detach()
                # A mean over processes is not finite where one of them is not, so that all stop at the same step.
                means: Tensor = self.fabric.all_reduce(own.clone(), reduce_op="mean")  # type: ignore[assignment]
                parts.append(LossTerms(batch, tuple(losses), means, own))
                with record_function("backward"):
                    self.fabric.backward(total * self.intact / (images / len(batch)))
        return parts

    def _finish_gradient(self) -> Tensor:
        """Clips the gradient where the recipe says so; its norm before."""
        if self.half:
            self.fabric.strategy.precision.unscale_gradients(self.optimizer)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self.sharded:
            sharding.average_loose(parameters)
        norm = sharding.gradient_norm(parameters)
        most = self.recipe.optimizer.clip_norm
        if most is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
        return norm

    def finished(self, wait: bool = False) -> Iterator[StepFigures]:
        """The figures of steps that the device is done with, oldest first; of all steps where ``wait``.

        The mean of every loss term over all images and processes, their sum as ``loss``, and the norm of the gradient
        before it was clipped. On a CPU a step is done when ``train_step`` is.

        Raises NonFiniteLoss for a step after which the weights did not change; its batch is then in the run folder,
        for ``replay``.
        """
        # Sharded weights of a step that failed are gathered by all processes, so that all have to see it at once.
        wait = wait or self.sharded
        while self.unread and (wait or len(self.unread) > MOST_UNREAD or self.unread[0].readout.ready()):
            yield self._figures(self.unread.popleft())

    def _figures(self, done: UnreadStep) -> StepFigures:
        norm, parts = done.read()
        figures: dict[str, float] = {}
        images = sum(map(len, done.batches))
        for batch, names, (means, own) in zip(done.batches, done.names, parts, strict=True):
            if not all(map(math.isfinite, means)):
                self._stop(done, batch, dict(zip(names, own[1:])))
            for name, value in zip(("loss", *names), means):
                figures[name] = figures.get(name, 0.0) + value * (len(batch) / images)
        if not self.half and not math.isfinite(norm):
            # The gradients at hand are those of the last step.
            bad = bad_gradients(self.detector) if done.step + 1 == self.step else []
            named = {f"gradient of {name}": math.nan for name in bad} or {"norm of the gradient": norm}
            self._stop(done, done.batches[0], named)
        figures["gradient_norm"] = norm
        return StepFigures(done.step + 1, done.epoch + 1, done.lr, figures)

    def _use_smaller_parts(self, error: torch.OutOfMemoryError, batches: Sequence[Batch]) -> None:
        images = max(map(len, batches))
        if self.fabric.world_size > 1:
            raise RunError(
                f"step {self.step}: process {self.fabric.global_rank} has too little memory for {images} images; "
                "resume='auto' goes on with a smaller batch_size and more accumulate, their product unchanged"
            ) from error
        if self.parts >= min(MOST_PARTS, images):
            raise error
        self.parts *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(
            f"step {self.step}: too little memory for {images} images at once; from here on in {self.parts} parts, "
            f"which are one step of the same {self.plan.total_batch_size} images"
        )

    def _stop(self, done: UnreadStep, batch: Batch, values: dict[str, float]) -> None:
        """Writes down the step that went wrong and raises NonFiniteLoss; what was not finite is in ``values``."""
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        model = sharding.whole_state(self.detector) if self.sharded else self.detector.state_dict()
        if not bad:
            raise NonFiniteLoss(f"step {done.step}: a loss term of another process is not finite")
        path = save_failed_step(
            self.folder,
            FailedStep(
                model=model,
                batch=batch,
                step=done.step,
                rank=self.fabric.global_rank,
                seed=step_seed(self.plan.seed, done.step, self.fabric.global_rank),
                precision=self.plan.precision,
            ),
        )
        told = ", ".join(f"{name} = {value}" for name, value in itertools.islice(bad.items(), 8))
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise NonFiniteLoss(
            f"step {done.step} (epoch {done.epoch + 1}): {told}{more}; "
            f"images {', '.join(map(str, batch.image_ids))}; "
            f"learning rate {done.lr:.3g}, precision {self.plan.precision}. "
            f"The last state in {self.folder} is from before, and the step is kept in {path.name}: "
            "`sdk fit --replay RUN` finds where it begins. A lower lr, longer warm-up, gradient clipping or "
            "precision='32' are what usually helps"
        )

    @property
    def current_epoch(self) -> int:
        """The epoch that goes on, or has just ended; counted from 1."""
        return self.epoch if self.epoch and self.step == self.epoch_start else self.epoch + 1

    def end(self, why: str) -> None:
        """Ends the training after the step at hand: the weights are scored and kept as at its planned end."""
        self.ending = self.ending or why

    def is_over(self, patience: int | None) -> bool:
        """Whether nothing is left to be done: all epochs or steps are, or it was ended, or does not improve."""
        plan = self.plan
        over = self.epoch >= plan.epochs or (plan.max_steps is not None and self.step >= plan.max_steps)
        return over or self.ending is not None or (patience is not None and self.scorings_without_gain >= patience)

    def end_epoch(self) -> None:
        """Counts an epoch all of whose steps are done."""
        self.epoch += 1
        self.epoch_start = self.step

    def is_best(self, figure: float | None) -> bool:
        """Counts a scoring; whether its weights are the best so far, as they are until there is a first figure."""
        gained = figure is not None and (self.best is None or figure > self.best)
        better = gained or self.best is None
        self.scorings_without_gain = 0 if gained else self.scorings_without_gain + 1
        if figure is not None:
            self.best = figure if gained else self.best
            self.best_epochs[self.current_epoch] = figure
            ranked = sorted(self.best_epochs, key=lambda epoch: (-self.best_epochs[epoch], epoch))
            self.best_epochs = {epoch: self.best_epochs[epoch] for epoch in sorted(ranked[: self.saving.keep_best])}
        return better

    def keep_weights(self, model: nn.Module, dataset: DetectionDataset, better: bool) -> None:
        """Writes the ``usable`` weights; where several best epochs are kept, each as ``epoch-N.safetensors`` too."""
        names = ["last", "best"] if better else ["last"]
        if self.saving.keep_best > 1:
            kept = [f"epoch-{epoch}" for epoch in self.best_epochs]
            names += [name for name in kept if name == f"epoch-{self.current_epoch}"]
            for path in self.folder.glob("epoch-*.safetensors"):
                if path.stem not in kept:
                    path.unlink()
        for name in names:
            save_weights(
                self.folder / f"{name}.safetensors",
                model,
                recipe=self.recipe,
                classes=dataset.classes,
                category_ids=dataset.category_ids,
            )

    def save_is_due(self) -> bool:
        """Whether so many steps or minutes have passed since the last state."""
        minutes = self.saving.save_minutes
        late = minutes is not None and self.fabric.is_global_zero and self.writer.minutes_since() >= minutes
        return self.step % self.saving.save_every == 0 or late

    def save(self) -> None:
        """Writes everything that training goes on from, large states beside the training; all processes together.

        All steps must be ``finished``: what was not finite is not to be gone on from.
        """
        assert not self.unread
        values = {
            "precision": self.fabric.strategy.precision.state_dict(),
            **{name: getattr(self, name) for name in PROGRESS},
        }
        if self.sharded:
            self._save_parts(values)
        elif self.fabric.is_global_zero:
            models = {name: model.state_dict() for name, model in self._models().items()}
            self.writer.write({**models, "optimizer": self.optimizer.state_dict(), **values})

    def _models(self) -> dict[str, nn.Module]:
        averaged = {} if self.averaged is None else {"averaged": self.averaged.model}
        return {"model": self.detector, **averaged}

    def _save_parts(self, values: dict[str, Any]) -> None:
        path = self.folder / TRAINING_STATE
        temporary = Path(self.fabric.broadcast(str(path.with_name(f".{path.name}.{os.getpid()}"))))
        with named_errors(path):
            for model in self._models().values():
                sharding.share_buffers(model)
            sharding.write_parts(temporary, sharding.parts_of(self._models(), self.optimizer))
            if self.fabric.is_global_zero:
                sharding.write_plain(temporary, values)
                make_room(path, self.saving.keep_last)
                temporary.rename(path)
                sync_folder(path.parent)
        self.fabric.barrier()

    def finish_saving(self) -> None:
        """Waits until what was saved is on the disk; every process goes on from here together."""
        self.writer.finish()
        self.fabric.barrier()

    def restore(self) -> None:
        """Goes back to the newest saved state that is whole, whatever number of processes has written it."""
        found = None
        if self.fabric.is_global_zero:
            remove_unfinished(self.folder)
            found = newest_whole_state(self.folder, sharding.read_any)
        path = Path(self.fabric.broadcast(str(found)))
        state, models = sharding.read_any(path), self._models()
        if path.is_dir():
            parts = sharding.parts_of(models, self.optimizer)
            sharding.read_parts(path, parts, alone=not self.sharded)
            sharding.put_back(parts, models, self.optimizer)
        elif self.whole is not None:
            optimizer = make_optimizer(self.whole, self.recipe.optimizer, self.plan.lr)
            sharding.spread(state, self.whole, optimizer, models, self.optimizer)
        else:
            for name, model in models.items():
                load_state(model, state[name], source=str(path))
            for group in state["optimizer"]["param_groups"]:
                group["fused"] = True  # States of earlier versions say otherwise.
            self.optimizer.load_state_dict(state["optimizer"])
        if not self.sharded:
            lay_out_alike(self.optimizer)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        for name in PROGRESS:
            # States of earlier versions know fewer of these.
            setattr(self, name, state.get(name, getattr(self, name)))


PROGRESS = ("step", "epoch", "epoch_start", "best", "best_epochs", "scorings_without_gain", "parts")
"""What a training state holds besides tensors."""


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of what a model draws in a step."""
    return (seed * 1_000_003 + step) * 4_099 + rank


def grouped(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """``count`` batches at a time; the last group may be smaller."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, count)):
        yield group
