"""Which implementation of the ops is in use, and why.

The native library (``_C.so`` beside this file) holds a kernel of every op for the CPU and, where it was built with a
CUDA toolkit, for CUDA devices. Whatever has no native kernel runs on ``ops/reference.py``.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor


def _load() -> tuple[bool, str]:
    """Load the native library; whether that worked, and what happened in words."""
    libraries = sorted(Path(__file__).parent.glob("_C*.so"))
    if not libraries:
        return False, "not built (no compiler at install time, or SDK_BUILD_OPS=0)"
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError as error:
        return False, f"{libraries[0].name} does not load: {error}"
    return True, f"loaded {libraries[0].name}"


LOADED, REASON = _load()
CUDA = LOADED and torch._C._dispatch_has_kernel_for_dispatch_key("sdk::carafe", "CUDA")


def native(tensor: Tensor) -> bool:
    """Whether a native kernel serves the device of ``tensor``; none does in a program that is exported."""
    if torch.compiler.is_exporting():
        return False
    return LOADED and (tensor.device.type == "cpu" or (CUDA and tensor.device.type == "cuda"))


def describe() -> dict[str, str]:
    """The implementation that serves each kind of device, with its reason."""
    if not LOADED:
        return {"cpu": f"reference: {REASON}", "cuda": f"reference: {REASON}"}
    return {
        "cpu": f"native: {REASON}",
        "cuda": f"native: {REASON}" if CUDA else "reference: built without a CUDA toolkit",
    }


def check_same_device(**tensors: Tensor | None) -> None:
    """Raise ``ValueError`` unless all tensors are on the device of the first."""
    (first, device), *others = ((name, tensor.device) for name, tensor in tensors.items() if tensor is not None)
    for name, other in others:
        if other != device:
            raise ValueError(f"{name}: expected on {device} like {first}, found on {other}")


def common_dtype(*tensors: Tensor) -> list[Tensor]:
    """The floating point tensors in the widest of their dtypes, as mixed precision hands them over in several."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def refuse_if_deterministic(op: str, tensor: Tensor) -> None:
    """Raise where deterministic algorithms are asked for and the CUDA backward of ``op`` adds in any order."""
    if tensor.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        message = f"the CUDA backward of sdk::{op} is not deterministic"
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(f"{message}; torch.use_deterministic_algorithms(True) forbids it")
        warnings.warn(message, stacklevel=2)
