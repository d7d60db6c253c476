"""Parts of a detector that are not trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from ..errors import nearest
from ..models.backbones.resnet import StagedBackbone


class Frozen:
    """The parts of a detector that patterns name: their parameters are not trained, and they stay in evaluation mode,
    so that batch normalization keeps its running statistics and dropout is off.

    patterns: ``backbone`` or any other name of a module or parameter, in full or its end, with ``*``, ``?`` and
    ``[...]`` as in a shell; with a module goes all that is in it. ``stage2`` or ``2``: the stem and the first two
    stages of a backbone that has stages.

    Raises ValueError where one names nothing, or nothing would be left to train.
    """

    def __init__(self, detector: nn.Module, patterns: Sequence[str]) -> None:
        self.modules: list[str] = []
        self.parameters: list[str] = []
        modules = [name for name, _ in detector.named_modules() if name]
        parameters = [name for name, _ in detector.named_parameters()]
        for given in patterns:
            stage = re.fullmatch(r"(?:stage)?(\d+)", given)
            found = 0
            for pattern in _first_stages(detector, int(stage[1])) if stage else [given]:
                inside = [name for name in modules if any(_matches(part, pattern) for part in _with_parents(name))]
                self.modules += inside
                own = {*inside}
                named = [n for n in parameters if _matches(n, pattern) or n.rpartition(".")[0] in own]
                self.parameters += named
                found += len(inside) + len(named)
            if not found:
                top = [name for name in modules if name.count(".") < 2]
                raise ValueError(
                    f"freeze: {given!r} names no part of {type(detector).__name__}{nearest(given, top)}; "
                    f"it has {', '.join(name for name in top if '.' not in name)}"
                )
        for name in self.parameters:
            detector.get_parameter(name).requires_grad_(False)
        if self.parameters and not any(parameter.requires_grad for parameter in detector.parameters()):
            raise ValueError(f"freeze: {', '.join(patterns)} leaves nothing to train")

    def keep_in_evaluation(self, detector: nn.Module) -> None:
        """Puts the parts back into evaluation mode, from which ``train()`` of the whole took them.

        By name, because parts may have been replaced meanwhile, as batch normalization is by one of many processes.
        """
        for name in self.modules:
            detector.get_submodule(name).training = False


def _first_stages(detector: nn.Module, count: int) -> list[str]:
    """Names of the stem's parts and of the first stages."""
    for name, module in detector.named_modules():
        if isinstance(module, StagedBackbone):
            if count > len(module.stage_names):
                raise ValueError(f"freeze: stage{count}: the backbone has {len(module.stage_names)} stages")
            stem = {id(part) for part in module.stem_parts()}
            parts = [child for child, part in module.named_children() if id(part) in stem]
            return [f"{name}.{part}" for part in [*parts, *module.stage_names[:count]]]
    raise ValueError(f"freeze: stage{count}: the backbone of {type(detector).__name__} has no stages; name its parts")


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
