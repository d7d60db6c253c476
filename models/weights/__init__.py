"""Weights for a detector: published, of its backbone, or from a file."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from torch import Tensor, nn

from ..backbones.timm import TimmBackbone
from ..detectors.base import Detector
from ..recipe import Recipe
from .backbones import FILES, to_backbone
from .classes import chosen_classes, class_layers, stored_count
from .download import obtain
from .errors import WeightsError
from .huggingface import from_huggingface
from .layouts import to_current
from .reading import Checkpoint, read

__all__ = ["WeightsError", "load_weights"]

log = logging.getLogger(__name__)


def load_weights(model: Detector, recipe: Recipe, weights: str | PathLike[str]) -> None:
    """Loads weights into a detector that ``recipe`` built.

    Every entry must fit, under its own or an older name. Class layers are an exception where the file's classes are
    others: rows of classes that both name are kept, the rest starts fresh, and this is said.

    Args:
        model: with ``classes``, where these are known.
        weights: ``published``; ``backbone``, what the row's training starts from; an https address; or a file, of a
            detector or of a backbone.

    Raises:
        WeightsError: when there are none, they cannot be had or read, or are of another model.
    """
    if weights == "published":
        if recipe.weights is None:
            raise WeightsError(f"{recipe.name}: no weights were published; give weights='backbone', a file or None")
        checkpoint = read(obtain(recipe.weights, recipe.sha256_prefix))
        if checkpoint.version is None and FIRST_ZOO in recipe.weights:
            checkpoint = replace(checkpoint, version="1.0")
        load_detector(model, recipe, checkpoint, recipe.weights)
    elif weights == "backbone":
        load_start(model, recipe)
    else:
        address = str(weights)
        if "://" in address and not address.startswith("https://"):
            raise WeightsError(f"{address}: expected a file or an https address")
        file = obtain(address, published_digits(address)) if "://" in address else Path(weights).expanduser()
        if not file.is_file():
            raise WeightsError(f"{address}: no such file; weights are 'published', 'backbone', a file or None")
        checkpoint = read(file)
        checkpoint = replace(checkpoint, state=from_huggingface(checkpoint.state))
        if any(key.split(".")[0] in PARTS for key in checkpoint.state):
            load_detector(model, recipe, checkpoint, address)
        else:
            load_backbone(model, checkpoint.state, address)


FIRST_ZOO = "/mmdetection/models/"
"""In the addresses of files of 1.x, of which not all say their version."""
PARTS = ("backbone", "neck", "bbox_head", "rpn_head", "roi_head")
"""What a detector's file has at the top, and a classifier's has not."""


def published_digits(address: str) -> str | None:
    """The SHA-256 digits at the end of a file name such as ``resnet50-0676ba61.pth``, or none."""
    digits = Path(address).stem.rsplit("-", 1)[-1]
    return digits if len(digits) == 8 and not set(digits) - set("0123456789abcdef") else None


def load_start(model: Detector, recipe: Recipe) -> None:
    """Loads what a row's training starts from: another detector, or a pretrained backbone."""
    if recipe.start_from is not None:
        file = obtain(recipe.start_from, published_digits(recipe.start_from))
        load_detector(model, recipe, read(file), recipe.start_from)
    elif isinstance(model.backbone, TimmBackbone):
        load_extractor(model.backbone, None)
    elif recipe.backbone_weights is not None:
        if recipe.backbone_weights not in FILES:
            raise WeightsError(f"{recipe.name}: nobody knows where {recipe.backbone_weights} lies; give a file")
        address = FILES[recipe.backbone_weights]
        load_backbone(model, read(obtain(address, published_digits(address))).state, address)
    else:
        raise WeightsError(f"{recipe.name}: is trained without a pretrained backbone; give weights=None")


def load_backbone(model: Detector, state: dict[str, Tensor], source: str) -> None:
    """Loads an image classifier's features into the backbone, and into a second one of a recursive pyramid.

    Layers that a detector adds to its backbone stay fresh, and this is said.
    """
    backbone: nn.Module = model.backbone  # type: ignore[assignment]
    if isinstance(backbone, TimmBackbone):
        load_extractor(backbone, state, source)
        return
    again = getattr(getattr(model, "neck", None), "rfp_modules", ())
    for one in (backbone, *again):
        own = one.state_dict()
        fitting = to_backbone(state, own)
        require_known(fitting, own, source)
        # A classifier's weights can be stored at another shape only by being another network.
        require_shapes(fitting, own, source)
        missing = told_missing(one.load_state_dict(fitting, strict=False).missing_keys)
        if len(missing) > len(own) // 2:
            raise WeightsError(f"{source}: has only {len(fitting)} of the backbone's {len(own)} entries")
        if missing:
            log.warning("%s: %d entries of the backbone start fresh: %s", source, len(missing), listed(missing))


def load_extractor(backbone: TimmBackbone, state: dict[str, Tensor] | None, source: str | None = None) -> None:
    """Loads what ``timm`` has published for a backbone of its, or a file's ``state`` in its names."""
    try:
        backbone.load(state)
    except Exception as error:  # The hub, the network and the model each have errors of their own.
        said = " ".join(f"{type(error).__name__}: {error}".split())
        hint = "" if state else "; give a file of it as weights, or None for random ones"
        raise WeightsError(f"{source or f'timm/{backbone.name}'}: cannot be loaded{hint}: {said:.400}") from error


def load_detector(model: Detector, recipe: Recipe, checkpoint: Checkpoint, source: str) -> None:
    """Loads a detector's state, with what its classes and the model's have in common."""
    own = model.state_dict()
    state = to_current(checkpoint.state, own, checkpoint.version)
    require_known(state, own, source)
    classes = model.classes
    if classes is None and recipe.classes is not None and len(recipe.classes) == model.num_classes:
        classes = recipe.classes
    differs = any(state[key].shape != own[key].shape for key in state)
    renamed = None not in (classes, checkpoint.classes) and classes != checkpoint.classes
    if differs or renamed:
        state = fit_classes(state, own, recipe, checkpoint.classes, classes, model.num_classes, source)
    require_shapes(state, own, source)
    result = model.load_state_dict(state, strict=False)
    missing = told_missing(result.missing_keys)
    if missing:
        raise WeightsError(f"{source}: lacks {len(missing)} entries of this {recipe.name}: {listed(missing)}")
    if model.classes is None and checkpoint.classes is not None and len(checkpoint.classes) == model.num_classes:
        model.classes = checkpoint.classes


def fit_classes(
    state: dict[str, Tensor],
    own: dict[str, Tensor],
    recipe: Recipe,
    stored: Sequence[str] | None,
    wanted: Sequence[str] | None,
    num_classes: int,
    source: str,
) -> dict[str, Tensor]:
    """The state with class layers for other classes.

    stored, wanted: class names of the file and of the model, in label order, where they are known.
    """
    layers = class_layers(recipe.build, num_classes)
    others = {key: value for key, value in state.items() if key not in layers}
    require_shapes(others, own, source)
    count = stored_count(state, layers)
    if count is None:
        require_shapes(state, own, source)
        return state
    labels: list[int | None] = [None] * num_classes
    if stored is not None and wanted is not None and len(stored) == count and len(wanted) == num_classes:
        labels = [stored.index(name) if name in stored else None for name in wanted]
    elif count == num_classes:
        return state
    kept = sum(label is not None for label in labels)
    log.warning(
        "%s: has %d classes, the model %d: the class layers %s: %s",
        source,
        count,
        num_classes,
        f"keep the rows of {kept} classes that both name" if kept else "start fresh",
        listed(list(layers)),
    )
    fitted = {
        key: chosen_classes(own[key], state[key], key, dims, labels, count) if kept else own[key]
        for key, dims in layers.items()
        if key in state
    }
    return others | fitted


def require_known(state: Collection[str], own: Collection[str], source: str) -> None:
    """Raises WeightsError where the state has names that the model has not, with the model's closest ones."""
    unknown = sorted(set(state) - set(own))
    if not unknown:
        return
    free = sorted(set(own) - set(state)) or sorted(own)
    told = []
    for key in unknown[:10]:
        close = difflib.get_close_matches(key, free, n=1, cutoff=0.0)
        told.append(f"{key} (closest: {', '.join(close)})")
    more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    raise WeightsError(f"{source}: {len(unknown)} entries are not of this model: {'; '.join(told)}{more}")


def require_shapes(state: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    """Raises WeightsError where an entry has another shape than the model's."""
    wrong = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in sorted(state.items())
        if value.shape != own[key].shape
    ]
    if wrong:
        raise WeightsError(f"{source}: {len(wrong)} entries have another shape: {listed(wrong)}")


def told_missing(missing: Sequence[str]) -> list[str]:
    """Missing names but for counters of batches, which older files lack and nothing reads."""
    return [key for key in missing if not key.endswith("num_batches_tracked")]


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
