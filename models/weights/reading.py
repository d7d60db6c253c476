"""Checkpoint files to plain tensors, without running anything that a file may carry.

``torch.load(weights_only=True)`` builds tensors and plain containers only. Published checkpoints also carry the
training's settings and scores as objects of libraries that need not be installed: each class named here is replaced by
an inert stand-in that keeps nothing of them but mappings. Any other class or function is an error before it is called.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError


class Inert:
    """Stands for an object that is of no use here: takes any arguments and any state, keeps none."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class InertMapping:
    """Stands for a dictionary of another library; becomes a plain ordered one."""

    def __new__(cls, *arguments: object) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


MAPPINGS = (
    "addict.addict.Dict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
)
OBJECTS = (
    "argparse.Namespace",
    "datetime.datetime",
    "mmcv.utils.config.Config",
    "mmengine.config.config.Config",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.dtypes.Float32DType",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Int64DType",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
)
STAND_INS = [*((InertMapping, name) for name in MAPPINGS), *((Inert, name) for name in OBJECTS)]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    state: tensors by name. classes: class names in label order, where the file says them. version: of the library
    that wrote it, such as ``1.2.0``, where the file says so.
    """

    state: dict[str, Tensor]
    classes: tuple[str, ...] | None = None
    version: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read(file: Path) -> Checkpoint:
    """Reads a ``.safetensors`` file or a checkpoint that torch saved.

    Raises:
        WeightsError: when the file is missing, damaged, carries code, or holds no weights.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: no such file")
    return read_safetensors(file) if file.suffix == ".safetensors" else read_pickled(file)


def read_safetensors(file: Path) -> Checkpoint:
    """Reads a safetensors file, with the class names of its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        classes = json.loads(metadata["classes"]) if "classes" in metadata else None
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{file}: not a readable safetensors file: {error}") from error
    return Checkpoint(tensors_of(state, file), names(classes), None, metadata)


def read_pickled(file: Path) -> Checkpoint:
    """Reads what ``torch.save`` wrote, old layout or new."""
    try:
        if zipfile.is_zipfile(file):
            # torch does not look at the archive's checksums.
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise WeightsError(f"{file}: damaged: the checksum of {broken} differs")
        with torch.serialization.safe_globals(STAND_INS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # What the bytes of a damaged pickle lead to can be any error.
        said = str(error).replace("\n", " ")
        refused = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", said)
        if refused:
            raise WeightsError(f"{file}: refused: it wants to run {refused[1]}, which is no data") from error
        # torch advises to trust the file; what is wrong with it stands behind.
        fault = re.sub(r"^Weights only load failed.*WeightsUnpickler error: | *Check the documentation .*$", "", said)
        raise WeightsError(f"{file}: not a readable checkpoint: {type(error).__name__}: {fault:.300}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file}: expected a mapping of names to tensors, found {type(content).__name__}")
    state = next(
        (content[key] for key in ("state_dict", "model_state", "model") if isinstance(content.get(key), Mapping)),
        content,
    )
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    version = meta.get("mmdet_version")
    classes = names(meta.get("CLASSES"))
    return Checkpoint(tensors_of(state, file), classes, version if isinstance(version, str) else None, meta)


def tensors_of(state: Mapping, file: Path) -> dict[str, Tensor]:
    """The state as a plain dictionary, without the prefix that data parallel training puts before names."""
    if not state:
        raise WeightsError(f"{file}: holds no tensors")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{file}: expected tensors by name, found {type(value).__name__} under {key!r:.80}")
    return {key.removeprefix("module."): value.detach() for key, value in state.items()}


def names(value: object) -> tuple[str, ...] | None:
    """Class names, or none where the file's are not a list of texts."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    return None
