"""Argument checks of the reference versions; the native kernels make the same ones in C++."""

from __future__ import annotations

import torch
from torch import Tensor


def check_shape(name: str, tensor: Tensor, *expected: int | None) -> None:
    """Raise ``ValueError`` unless ``tensor`` has the expected sizes; ``None`` accepts any size."""
    fits = tensor.ndim == len(expected) and all(e is None or e == s for e, s in zip(expected, tensor.shape))
    if not fits:
        wanted = ", ".join("any" if e is None else str(e) for e in expected)
        raise ValueError(f"{name}: expected shape ({wanted}), found {tuple(tensor.shape)}")


def check_floating(**tensors: Tensor | None) -> None:
    """Raise ``ValueError`` unless all are floating point tensors on one device."""
    device = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: expected a floating point tensor, found {tensor.dtype}")
        device = device or tensor.device
        if tensor.device != device:
            raise ValueError(f"{name}: expected on {device} like the other arguments, found on {tensor.device}")


def check_integer(name: str, tensor: Tensor, like: Tensor) -> None:
    """Raise ``ValueError`` unless ``tensor`` is int64 and on the device of ``like``."""
    if tensor.dtype != torch.int64:
        raise ValueError(f"{name}: expected int64, found {tensor.dtype}")
    if tensor.device != like.device:
        raise ValueError(f"{name}: expected on {like.device} like the other arguments, found on {tensor.device}")


def check_values(name: str, valid: Tensor, expected: str) -> None:
    """Raise ``ValueError`` where CPU values are not ``valid``.

    Values on an accelerator are not looked at: that would wait for the device.
    """
    if valid.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(valid.all()):
        raise ValueError(f"{name}: expected {expected}")


def check_positive(**numbers: float) -> None:
    """Raise ``ValueError`` unless every number is above zero."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name}: expected a number above 0, found {number}")


def check_numbers(**numbers: float) -> None:
    """Raise ``ValueError`` where a number is NaN."""
    for name, number in numbers.items():
        if number != number:
            raise ValueError(f"{name}: expected a number, found {number}")
