"""A learning rate found by trying: the range test of Smith, "Cyclical Learning Rates for Training Neural Networks",
section 3.3 (https://arxiv.org/abs/1506.01186)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from ..errors import RunError
from ..inference.batching import Batch
from ..models.recipe import Recipe
from ..reports.progress import say
from .optimization import make_optimizer
from .plan import Plan

STEPS = 60
LOWEST, HIGHEST = 1e-4, 1e2
"""Of the plan's learning rate, between which the test goes in equal factors."""
SMOOTHING = 0.9
DIVERGED = 4.0
"""Times the lowest loss, from which on nothing more is learnt from going on."""


def found_lr(fabric: Fabric, detector: nn.Module, batches: Iterable[Batch], recipe: Recipe, plan: Plan) -> float:
    """The learning rate at which the loss falls fastest, by ``STEPS`` steps of a copy of the detector; said aloud.

    All processes take what the first one finds on batches of its own, gone through again where there are few.

    Raises RunError where the loss falls nowhere.
    """
    best = 0.0
    if fabric.is_global_zero:
        rates, losses = _tried(fabric, copy.deepcopy(detector), batches, recipe, plan)
        best = steepest(rates, losses)
        say(f"find_lr: {best:.3g}, where the loss fell fastest between {rates[0]:.3g} and {rates[-1]:.3g}")
    return fabric.broadcast(best)


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the smoothed loss falls fastest over the logarithm of the rate."""
    smooth = _smoothed(losses)
    if len(smooth) < 3 or min(np.gradient(smooth)) >= 0:
        raise RunError("find_lr: the loss falls at no learning rate that was tried; give lr")
    return rates[int(np.argmin(np.gradient(smooth)))]


def _smoothed(losses: list[float]) -> np.ndarray:
    """Exponential moving average, corrected for its start."""
    mean, smooth = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth.append(mean / (1 - SMOOTHING**number))
    return np.array(smooth)


def _tried(
    fabric: Fabric, model: nn.Module, batches: Iterable[Batch], recipe: Recipe, plan: Plan
) -> tuple[list[float], list[float]]:
    """Rates and the losses at them, until these are no numbers or far above the lowest."""
    model.to(fabric.device).train()
    optimizer = make_optimizer(model, recipe.optimizer, plan.lr)
    scaler = torch.amp.GradScaler(fabric.device.type, enabled=plan.precision == "16-mixed")
    rates: list[float] = []
    losses: list[float] = []
    state = torch.get_rng_state()
    torch.manual_seed(plan.seed)
    for step, batch in enumerate(itertools.islice(itertools.cycle(batches), STEPS)):
        factor = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        batch = batch.to(fabric.device)
        with fabric.autocast():
            loss = torch.stack([term.float() for term in model(batch.images, batch.targets).values()]).sum()
        value = float(loss.detach())
        if not math.isfinite(value) or (losses and value > DIVERGED * min(losses)):
            break
        rates.append(plan.lr * factor)
        losses.append(value)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if recipe.optimizer.clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
        scaler.step(optimizer)
        scaler.update()
    torch.set_rng_state(state)
    return rates, losses
