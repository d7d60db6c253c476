"""A step that went wrong: kept as it was, and run again to find where it begins."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..errors import RunError
from ..inference.batching import Batch
from ..models.priors import replace_anchors
from ..models.structures import ImageBatch, Targets
from ..results.manifest import read_manifest
from ..results.state import load_training_state, save_training_state

MOST_PARTS = 8
"""Parts into which a batch is split at most, by halving three times, where memory is short."""


@dataclass(frozen=True)
class FailedStep:
    """What is needed to run a step again: the weights before it, the batch on this process, and the seed."""

    model: dict[str, Tensor]
    batch: Batch
    step: int
    rank: int
    seed: int
    precision: str


def save_failed_step(folder: Path, failed: FailedStep) -> Path:
    """Writes ``failed.pt``, or ``failed-RANK.pt`` of another process than the first; the path."""
    path = folder / ("failed.pt" if failed.rank == 0 else f"failed-{failed.rank}.pt")
    batch = failed.batch
    state = {
        **{field.name: getattr(failed, field.name) for field in fields(failed)},
        "batch": {
            "images": _values(batch.images),
            "targets": [_values(target) for target in batch.targets],
            "image_ids": [str(image_id) for image_id in batch.image_ids],
        },
    }
    save_training_state(path, state)
    return path


def load_failed_step(path: Path) -> FailedStep:
    """What ``save_failed_step`` wrote. Raises RunError."""
    state = load_training_state(path)
    if state.keys() != {field.name for field in fields(FailedStep)}:
        raise RunError(f"{path}: holds no failed step")
    batch = state.pop("batch")
    ids = tuple(batch["image_ids"])
    images, targets = ImageBatch(**batch["images"]), [Targets(**target) for target in batch["targets"]]
    return FailedStep(batch=Batch(images, targets, ids, (None,) * len(ids)), **state)


def _values(structure: Any) -> dict[str, Any]:
    return {field.name: getattr(structure, field.name) for field in fields(structure)}


@dataclass(frozen=True)
class Replayed:
    """What came out of a step that was run again.

    losses: the value of every term. module: name of the first module whose output was not finite, or none. gradients:
    names of the parameters whose gradient was not finite. operation: what autograd says of where that began.
    """

    step: int
    image_ids: tuple[str, ...]
    losses: dict[str, float]
    module: str | None
    gradients: tuple[str, ...]
    operation: str | None

    def __str__(self) -> str:
        lines = [f"step {self.step}, images {', '.join(self.image_ids)}"]
        lines += [f"  {name} = {value:.6g}" for name, value in self.losses.items()]
        if self.module is not None:
            lines.append(f"first output that is not finite: {self.module or 'the detector itself'}")
        if self.gradients:
            shown = ", ".join(self.gradients[:5])
            lines.append(f"{len(self.gradients)} parameters with a gradient that is not finite: {shown}")
        if self.operation is not None:
            lines.append(self.operation)
        if self.module is None and not self.gradients:
            lines.append("everything is finite here: another device, version or number of threads than in the run")
        return "\n".join(lines)


def replay(run: str | Path, model: nn.Module | None = None) -> Replayed:
    """Runs the step again at which a run ended with NonFiniteLoss, on the CPU or one GPU; changes nothing.

    Args:
        run: the run folder.
        model: a detector of the same architecture, where the run's was not made from a name of the zoo.

    Raises:
        RunError: when the folder is no run, or no step of it has failed.
    """
    folder = Path(run)
    name = read_manifest(folder)["model"]
    paths = sorted(folder.glob("failed*.pt"))
    if not paths:
        raise RunError(f"{folder}: no step of this run was stopped for a value that is not finite")
    failed = load_failed_step(paths[0])
    if model is None:
        from .. import models

        if not models.is_name(name["name"]):
            raise RunError(f"{folder}: {name['name']} is no name of the zoo; give its detector as model=")
        model = models.create(name["name"], num_classes=name["num_classes"], weights=None)
    replace_anchors(model, name.get("anchors", {}))
    fabric = Fabric(devices=1, precision=failed.precision)  # type: ignore[arg-type]
    model.load_state_dict(failed.model)
    model.to(fabric.device).train()
    first: list[str] = []

    def look(name: str, output: Any) -> None:
        if not first and any(not tensor.isfinite().all() for tensor in _tensors(output)):
            first.append(name)

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, module in model.named_modules()
    ]
    batch = failed.batch.to(fabric.device)
    torch.manual_seed(failed.seed)
    operation = None
    try:
        with torch.autograd.set_detect_anomaly(True):
            with fabric.autocast():
                terms = model(batch.images, batch.targets)
            total = torch.stack([term.float() for term in terms.values()]).sum()
            model.zero_grad()
            try:
                total.backward(retain_graph=True)
            except RuntimeError as error:
                operation = str(error)
        if operation is not None:
            model.zero_grad()
            total.backward()
    finally:
        for hook in hooks:
            hook.remove()
    losses = {name: float(term.detach()) for name, term in terms.items()}
    module, bad = next(iter(first), None), tuple(bad_gradients(model))
    return Replayed(failed.step, failed.batch.image_ids, losses, module, bad, operation)


def bad_gradients(model: nn.Module) -> list[str]:
    """Names of the parameters whose gradient is not finite."""
    found = ((name, parameter.grad) for name, parameter in model.named_parameters())
    return [name for name, gradient in found if gradient is not None and not gradient.isfinite().all()]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]
