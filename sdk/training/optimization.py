"""Optimizer, learning rate and averaged weights, as a recipe describes them."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from ..models.recipe import Optimizer, Schedule

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(model: nn.Module, settings: Optimizer, lr: float) -> list[dict]:
    """One group for each pair of learning rate and weight decay that the recipe's rules give; frozen ones left out.

    A rule by name decides alone (the longest matching pattern wins). Otherwise normalization layers get their decay
    factor, and biases theirs, except those of the convolutions that predict deformable offsets: these start at zero
    and keep the common rate. Every group keeps its own rate at full strength in ``base_lr``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full_name = f"{module_name}.{name}" if module_name else name
            factors = _factors(full_name, isinstance(module, NORMS), settings)
            groups.setdefault((lr * factors[0], settings.weight_decay * factors[1]), []).append(parameter)
    return [
        {"params": parameters, "lr": group_lr, "base_lr": group_lr, "weight_decay": decay}
        for (group_lr, decay), parameters in groups.items()
    ]


def _factors(name: str, in_norm: bool, settings: Optimizer) -> tuple[float, float]:
    matching = [rule for rule in settings.rules if rule.pattern in name]
    if matching:
        rule = max(matching, key=lambda rule: len(rule.pattern))
        return rule.lr_factor, rule.decay_factor
    if in_norm:
        return 1.0, settings.norm_decay_factor
    if name.rpartition(".")[2] == "bias" and "conv_offset" not in name:
        return settings.bias_lr_factor, settings.bias_decay_factor
    return 1.0, 1.0


def make_optimizer(model: nn.Module, settings: Optimizer, lr: float, *, fused: bool = True) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over the recipe's parameter groups, at full learning rate ``lr``.

    Fused: one kernel for all parameters, which leaves the step out where the optimizer's ``found_inf`` is one. There is
    none for weights that are spread over processes; these are stepped one by one.
    """
    groups = parameter_groups(model, settings, lr)
    way: dict[str, Any] = {"fused": True} if fused else {"foreach": False}
    if settings.kind == "sgd":
        optimizer = torch.optim.SGD(
            groups, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay, **way
        )
        if settings.momentum:
            # The fused kernel would take all parameters of a group to have their first gradient in the same step.
            for parameter in (parameter for group in groups for parameter in group["params"]):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    if settings.kind == "adam":
        return torch.optim.Adam(groups, lr=lr, weight_decay=settings.weight_decay, **way)
    if settings.kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=settings.weight_decay, **way)
    raise ValueError(f"Optimizer.kind: expected sgd, adam or adamw, found {settings.kind!r}")


def lay_out_alike(optimizer: torch.optim.Optimizer) -> None:
    """Gives what the optimizer keeps of a parameter that parameter's memory layout.

    Fused kernels go through memory from end to end; a state may be from a training with another layout.
    """
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def lr_factor(schedule: Schedule, step: int, steps: int, epoch: int, warmup_steps: int) -> float:
    """Share of the full learning rate at optimizer step ``step`` of ``steps``, in epoch ``epoch``, counted from 0.

    Warm-up multiplies what the schedule gives, for the first ``warmup_steps`` steps; one cycle rises in them by itself.
    """
    if schedule.decay == "one-cycle":
        return _one_cycle(step, steps, warmup_steps)
    if schedule.decay == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    elif schedule.decay == "step":
        factor = schedule.drop_factor ** sum(epoch >= drop for drop in schedule.drops)
    else:
        raise ValueError(f"Schedule.decay: expected step, cosine or one-cycle, found {schedule.decay!r}")
    if step >= warmup_steps:
        return factor
    if schedule.warmup == "constant":
        return factor * schedule.warmup_factor
    if schedule.warmup == "linear":
        return factor * (1 - (1 - step / warmup_steps) * (1 - schedule.warmup_factor))
    raise ValueError(f"Schedule.warmup: expected linear or constant, found {schedule.warmup!r}")


RISING_SHARE = 0.3
"""Of the steps of one cycle, those in which the learning rate rises."""
START, END = 1 / 25, 1 / 250_000
"""Shares of the full learning rate at which one cycle starts and ends."""


def _one_cycle(step: int, steps: int, rising: int) -> float:
    """Half a cosine up to the full rate at step ``rising``, and one down to the last step (Smith and Topin,
    "Super-Convergence", section 3; half cosines and shares as in torch's OneCycleLR)."""
    if step < rising:
        first, last, done = START, 1.0, step / rising
    else:
        first, last, done = 1.0, END, min((step - rising) / max(steps - 1 - rising, 1), 1.0)
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))


class AveragedWeights:
    """Exponential moving average of a model's weights and buffers, kept as a second model in eval mode.

    The decay rises as (1 + step) / (10 + step) up to ``decay``, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        # By parameter and not by name: a part that stands under two names must move once.
        for mine, new in zip(self._tensors(self.model), self._tensors(model), strict=True):
            if mine.is_floating_point():
                mine.lerp_(new, 1 - decay)
            else:
                mine.copy_(new)

    @staticmethod
    def _tensors(model: nn.Module) -> list[torch.Tensor]:
        return [*model.parameters(), *model.buffers()]
