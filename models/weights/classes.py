"""Layers that depend on the class count, and what another set of classes keeps of them.

Shape letters: A groups (anchors of a location, or the numbers predicted for a class), K classes, c constants of a
group (background, objectness and box codes, or features that class scores are appended to).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

CLASS_MAJOR = re.compile(r"\.fc_reg\.|mask_head\.fc_logits\.")
"""Layers that predict A numbers for each class, class by class; all others hold K classes for each of A anchors."""


def class_layers(build: Callable[[int], nn.Module], num_classes: int) -> dict[str, dict[int, tuple[int, int]]]:
    """Every entry of the state whose shape depends on the class count: dimension to (A, c), its size A x (K + c).

    Found by building the detector with two class counts, without memory for its weights.
    """
    with torch.device("meta"):
        one, more = (build(count).state_dict() for count in (num_classes, num_classes + 1))
    found = {}
    for key, value in one.items():
        dims = {}
        for dim, (size, larger) in enumerate(zip(value.shape, more[key].shape)):
            if larger != size:
                groups = larger - size
                dims[dim] = (groups, size // groups - num_classes)
        if dims:
            found[key] = dims
    return found


def stored_count(state: dict[str, Tensor], layers: dict[str, dict[int, tuple[int, int]]]) -> int | None:
    """The class count that a state's class layers have, or none where they do not agree on one."""
    counts = set()
    for key, dims in layers.items():
        for dim, (groups, constants) in dims.items():
            if key not in state:
                continue
            if state[key].ndim <= dim or state[key].shape[dim] % groups:
                return None
            counts.add(state[key].shape[dim] // groups - constants)
    return counts.pop() if len(counts) == 1 and min(counts) > 0 else None


def chosen_classes(
    fresh: Tensor,
    stored: Tensor,
    key: str,
    dims: dict[int, tuple[int, int]],
    stored_labels: Sequence[int | None],
    count: int,
) -> Tensor:
    """``fresh`` with the stored values of the classes that both have, and of everything that is no class's.

    Args:
        fresh: the model's own entry. stored: the file's.
        key, dims: its name, and its dimensions that hold classes, as of ``class_layers``.
        stored_labels: for each class of the model its label in the file, or none.
        count: class count of the file.
    """
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for dim, size in enumerate(fresh.shape):
        if dim not in dims:
            ours.append(torch.arange(size))
            theirs.append(torch.arange(size))
            continue
        groups, constants = dims[dim]
        kept = [(label, old) for label, old in enumerate(stored_labels) if old is not None]
        own = places(groups, constants, len(stored_labels), [label for label, _ in kept], key)
        ours.append(own)
        theirs.append(places(groups, constants, count, [old for _, old in kept], key))
    result = fresh.clone()
    result[torch.meshgrid(*ours, indexing="ij")] = stored.to(fresh.dtype)[torch.meshgrid(*theirs, indexing="ij")]
    return result


def places(groups: int, constants: int, count: int, labels: list[int], key: str) -> Tensor:
    """Where some labels and all constants stand in a dimension of ``groups`` x (``count`` + ``constants``) numbers."""
    # One constant is the background, which comes last; several stand before the classes.
    first = constants if constants > 1 else 0
    chosen = torch.tensor([first + label for label in labels], dtype=torch.long)
    fixed = torch.arange(constants) + (0 if first else count)
    if CLASS_MAJOR.search(key):
        return torch.arange(groups * count).view(count, groups)[chosen].flatten()
    return torch.arange(groups * (count + constants)).view(groups, -1)[:, torch.cat([chosen, fixed])].flatten()
