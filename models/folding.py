"""A detector made ready for nothing but inference.

In evaluation mode a batch normalization is a scale and a shift of every channel, which the convolution before it can
take over (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3.2). On a CPU convolutions are also faster with the channels of a pixel side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .structures import ImageBatch

M = TypeVar("M", bound=nn.Module)


def for_inference(model: M) -> M:
    """A copy in evaluation mode that finds the same, up to rounding, in less time; ``model`` stays as it is.

    Batch normalization is folded into convolutions, so that the copy's state dict is another one.
    On a CPU its convolutions are fastest on a batch with ``channels_last``; they accept any other.
    """
    model = copy.deepcopy(model).eval()
    for parent, conv_name, norm_name in list(foldable(model)):
        conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
        parent.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var, arg-type]
        parent.set_submodule(norm_name, nn.Identity())
    if _on_cpu(model):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def in_standard_order(model: M) -> M:
    """The model with its weights laid out as a file holds them: the order decides which kernels round how, and a
    trained detector must find what the same one finds when it is read again."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return model


def channels_last(images: ImageBatch) -> ImageBatch:
    """The batch with the channels of a pixel side by side, on a CPU, where convolutions are faster on it."""
    if images.pixels.device.type != "cpu":
        return images
    return replace(images, pixels=images.pixels.contiguous(memory_format=torch.channels_last))


def foldable(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Parent and names of every plain convolution and the batch normalization right behind it.

    Behind it stands the next layer of an ``nn.Sequential``. In layers of this package it is also the later one of the
    same name with ``bn`` or ``norm`` for ``conv``: ``conv1`` and ``bn1``, ``lateral_conv`` and ``lateral_norm``,
    ``convs.0`` and ``bns.0`` of two lists.
    """
    for parent in model.modules():
        if type(parent) is not nn.Sequential and not type(parent).__module__.startswith(f"{__package__}."):
            # Nobody knows in which order a layer of somebody else runs its parts.
            continue
        layers: dict[str, nn.Module] = {}
        for name, child in parent.named_children():
            inner = child.named_children() if isinstance(child, nn.ModuleList) else ()
            layers.update({name: child, **{f"{name}.{index}": layer for index, layer in inner}})
        names = list(layers)
        for place, name in enumerate(names):
            later = names[place + 1 :]
            behind = later[:1] if isinstance(parent, nn.Sequential) else []
            for other in (*behind, name.replace("conv", "bn"), name.replace("conv", "norm")):
                if other in later and _folds(layers[name], layers[other]):
                    yield parent, name, other


def _folds(conv: nn.Module, norm: nn.Module) -> bool:
    # Subclasses of the convolution may change their weights on the way, as weight standardization does.
    return type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats


def _on_cpu(model: nn.Module) -> bool:
    first: Tensor | None = next(model.parameters(), None)
    return first is not None and first.device.type == "cpu"
