"""What happens in a step, and what changes from step to step."""

from __future__ import annotations

import itertools
import math
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..datasets.base import DetectionDataset
from ..errors import NonFiniteLoss
from ..inference.batching import Batch
from ..models.recipe import Recipe
from ..reports.progress import say
from ..results.state import TRAINING_STATE, load_training_state, save_training_state
from ..results.weights import load_state, save_weights
from .optimization import AveragedWeights, lr_factor, make_optimizer
from .plan import Plan


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


def grouped(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """``count`` batches at a time; the last group may be smaller."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, count)):
        yield group
