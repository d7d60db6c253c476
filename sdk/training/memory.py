"""How much memory a step of training takes, counted before the first one."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..inference.batching import Batch
from ..models.recipe import Recipe
from ..reports.progress import say

MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}
"""Tensors of a parameter's size that each optimizer keeps."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device: weights (averaged ones included), gradients, what the optimizer keeps, the batch, and what
    the forward pass keeps for the backward one."""

    weights: int
    gradients: int
    optimizer: int
    batch: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.batch + self.activations


def estimated_memory(fabric: Fabric, detector: nn.Module, batch: Batch, recipe: Recipe, averaged: bool) -> Memory:
    """The memory of a step on ``batch``, by a forward pass of a copy of the detector on the device.

    What a kernel uses only while it runs is not counted.
    """
    trained = sum(_bytes(p) for p in detector.parameters() if p.requires_grad)
    whole = sum(map(_bytes, [*detector.parameters(), *detector.buffers()]))
    moments = MOMENTS[recipe.optimizer.kind]
    if recipe.optimizer.kind == "sgd" and not recipe.optimizer.momentum:
        moments = 0
    tensors = [batch.images.pixels, *(t.masks for t in batch.targets), *(t.semantic for t in batch.targets)]
    return Memory(
        weights=whole * (2 if averaged else 1),
        gradients=trained,
        optimizer=moments * trained,
        batch=sum(_bytes(tensor) for tensor in tensors if tensor is not None),
        activations=kept_for_backward(fabric, copy.deepcopy(detector), batch),
    )


def kept_for_backward(fabric: Fabric, model: nn.Module, batch: Batch) -> int:
    """Bytes that a forward pass keeps besides the model's own and the batch's; the model's statistics change."""
    model.to(fabric.device).train()
    batch = batch.to(fabric.device)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    own.add(batch.images.pixels.untyped_storage().data_ptr())
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    state = torch.get_rng_state()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), fabric.autocast():
        # While the losses live, so does what they keep, and no place is counted twice.
        losses = model(batch.images, batch.targets)
    torch.set_rng_state(state)
    del losses
    return sum(kept.values())


USED_SHARE = 0.7
"""Of the free memory, what ``largest_batch`` fills by its count; kernels and larger images need the rest."""
LARGEST_BATCH = 256


def largest_batch(memory: Memory, images: int, free: int) -> int:
    """The largest power of two of images whose step fits into ``free`` bytes, by the memory of a step on some."""
    fixed = memory.weights + memory.gradients + memory.optimizer
    each = max(1, (memory.batch + memory.activations) // images)
    most = max(1, int(USED_SHARE * free - fixed) // each)
    return min(LARGEST_BATCH, 2 ** (most.bit_length() - 1))


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, or none where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return _free_on_linux(Path("/proc/meminfo"))


def _free_on_linux(file: Path) -> int | None:
    """Of the machine, with what the system would give up for it."""
    lines = file.read_text().splitlines() if file.is_file() else []
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def tell_memory(memory: Memory, fabric: Fabric) -> None:
    """Says what a step takes, and how much there is."""
    free = free_memory(fabric.device)
    left = "" if free is None else f", {_readable(free)} are free"
    parts = ", ".join(f"{field.name} {_readable(getattr(memory, field.name))}" for field in fields(memory))
    say(f"memory of a step on {fabric.device}: at least {_readable(memory.total)} ({parts}){left}")
    if free is not None and memory.total > free:
        say("warning: this is more than there is; a smaller batch_size or image_size takes less")


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _readable(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
