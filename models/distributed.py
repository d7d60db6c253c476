"""Figures that processes share while training."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def reduce_mean(value: Tensor) -> Tensor:
    """The mean of a scalar over all processes; the value itself where there is one process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value.div_(dist.get_world_size()), op=dist.ReduceOp.SUM)
    return value


def mean_count(count: int | float | Tensor, device: torch.device) -> Tensor:
    """A count as a float scalar, averaged over all processes and at least one: what losses are divided by."""
    value = torch.as_tensor(count, dtype=torch.float32, device=device)
    return reduce_mean(value).clamp(min=1.0)
