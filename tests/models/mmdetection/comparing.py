"""Whether two detectors are made of the same parts with the same numbers."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

NOT_COMPARED = ("recipe", "classes")


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """The places where two values differ: modules by their attributes, children and parameters, objects by theirs."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return [] if one == other else [f"{path}: {one!r} and {other!r}"]
    if type(one) is not type(other):
        return [f"{path}: {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, nn.Module):
        return _modules(one, other, path)
    if isinstance(one, torch.Tensor):
        equal = one.shape == other.shape and (one.device.type == "meta" or torch.equal(one, other))
        return [] if equal else [f"{path}: tensors of {tuple(one.shape)} and {tuple(other.shape)}"]
    if is_dataclass(one):
        names = [field.name for field in fields(one)]
        return [d for n in names for d in differences(getattr(one, n), getattr(other, n), f"{path}.{n}")]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{path}: {one!r:.80} and {other!r:.80}"]
        return [d for i, (a, b) in enumerate(zip(one, other)) for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(one, dict):
        return _mappings(one, other, path)
    if hasattr(one, "__dict__") and not callable(getattr(one, "__get__", None)) and not isinstance(one, type):
        return _mappings(vars(one), vars(other), path)
    return [] if one == other else [f"{path}: {one!r:.80} and {other!r:.80}"]


def _modules(one: nn.Module, other: nn.Module, path: str) -> list[str]:
    def own(module: nn.Module) -> dict[str, Any]:
        return {k: v for k, v in vars(module).items() if not k.startswith("_") and k not in NOT_COMPARED}

    def tensors(module: nn.Module) -> dict[str, Any]:
        named = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        return {name: (tuple(value.shape), value.requires_grad) for name, value in named.items()}

    found = _mappings(own(one), own(other), path) + _mappings(tensors(one), tensors(other), path)
    return found + _mappings(dict(one.named_children()), dict(other.named_children()), path)


def _mappings(one: dict, other: dict, path: str) -> list[str]:
    if list(one) != list(other) and one.keys() != other.keys():
        return [f"{path}: {sorted(map(str, one.keys() ^ other.keys()))} in one alone"]
    return [d for key in one for d in differences(one[key], other[key], f"{path}.{key}")]
