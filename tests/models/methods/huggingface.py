"""Detectors of Hugging Face's ``transformers`` as oracles: same weights, same pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sdk.models.structures import ImageBatch, Targets
from sdk.models.weights.huggingface import from_huggingface

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What both sides compute in, constants included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def scatter(model: nn.Module, norms: bool = False) -> None:
    """Random values in all that starts at zero or one, so that no part can be left out unnoticed.

    norms: also in batch normalization, whose scales start near zero.
    """
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if norms and isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(1 + torch.randn(module.weight.shape, generator=generator) * 0.1)
    for name, value in model.state_dict().items():
        if name.endswith("n_points_scale") or not value.is_floating_point():
            continue
        if "running_var" in name:
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.75)
        elif value.ndim == 1 and (value == 1).all():
            value.copy_(1 + torch.randn(value.shape, generator=generator) * 0.1)
        elif value.ndim == 1 and (value == 0).all():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
        elif (value == 0).all():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.02)


def pixels(size: int, dtype: torch.dtype) -> Tensor:
    """(2, 3, size, size) in 0..1."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


def ground_truth(size: int, dtype: torch.dtype, counts: Sequence[int] = (3, 1)) -> list[Targets]:
    """Objects of two images."""
    generator = torch.Generator().manual_seed(2)
    targets = []
    for count in counts:
        low = torch.rand(count, 2, generator=generator) * size * 0.5
        boxes = torch.cat((low, low + size * (0.1 + 0.35 * torch.rand(count, 2, generator=generator))), dim=1)
        targets.append(Targets(boxes.to(dtype), torch.randint(80, (count,), generator=generator)))
    return targets


def their_labels(targets: Sequence[Targets], size: int) -> list[dict[str, Tensor]]:
    """The same ground truth as the oracles take it."""
    labels = []
    for target in targets:
        low, high = target.boxes[:, :2], target.boxes[:, 2:]
        boxes = torch.cat(((low + high) / 2, high - low), dim=1) / size
        labels.append({"class_labels": target.labels, "boxes": boxes})
    return labels


def image_batch(images: Tensor) -> ImageBatch:
    """A batch without padding."""
    return ImageBatch(images, [(images.shape[2], images.shape[3])] * len(images))


def same_weights(oracle: nn.Module, model: nn.Module) -> None:
    """Gives the model the oracle's weights, every one."""
    model.load_state_dict(from_huggingface(oracle.state_dict()), strict=True)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Of every weight that has one."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_queries(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Logits and boxes, (B, Q, ...), of the same queries in any order: chance sorts proposals of equal scores."""
    for ours, theirs in zip(torch.cat(list(found), dim=-1), torch.cat(list(expected), dim=-1), strict=True):
        apart = torch.cdist(ours, theirs, p=torch.inf) / theirs.abs().max().clamp(min=1)
        assert float(apart.amin(dim=0).max()) < tolerance
        assert float(apart.amin(dim=1).max()) < tolerance
