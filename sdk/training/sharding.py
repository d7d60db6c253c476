"""Weights, gradients and optimizer spread over the processes (FSDP), and their states as distributed checkpoints.

A state is a folder of torch.distributed.checkpoint, of which every process writes its part; it opens on any number of
processes, one included.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ..results.state import DamagedState, load_training_state, save_training_state

PLAIN = "progress.pt"
"""The file of a state's folder with all that is no tensor, and the checksums of the other files."""

# All that the index of a checkpoint is made of; anything else could run code.
_INDEX_PARTS = {
    ("torch.distributed.checkpoint.metadata", name)
    for name in ("Metadata", "MetadataIndex", "TensorStorageMetadata", "ChunkStorageMetadata", "TensorProperties",
                 "BytesStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING")
} | {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"), ("torch", "device"), ("torch", "float32"), ("torch", "float16"), ("torch", "bfloat16"),
    ("torch", "float64"), ("torch", "int64"), ("torch", "int32"), ("torch", "uint8"), ("torch", "bool"),
    ("collections", "OrderedDict"), ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"),
}  # fmt: skip


def sharding_strategy(processes: int) -> ModelParallelStrategy:
    """Fabric's strategy that shards a detector: its backbone, and all the rest."""

    def shard(losses: nn.Module, mesh: Any) -> nn.Module:
        return sharded(losses, mesh["data_parallel"])

    return ModelParallelStrategy(shard, data_parallel_size=processes, tensor_parallel_size=1)


def mesh_of(fabric: Fabric) -> DeviceMesh:
    """The processes over which a sharded training spreads its weights."""
    assert isinstance(fabric.strategy, ModelParallelStrategy)
    return fabric.strategy.device_mesh["data_parallel"]


def sharded(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """The module with its parameters spread over the processes of ``mesh``; its backbone is gathered apart.

    Parameters of a single number cannot be spread, and stay whole: ``average_loose`` has to average their gradients.
    """
    loose = {parameter for parameter in module.parameters() if parameter.ndim == 0}
    for name, part in module.named_modules():
        if name.rpartition(".")[2] == "backbone":
            fully_shard(part, mesh=mesh, ignored_params=loose)
            break
    return fully_shard(module, mesh=mesh, ignored_params=loose)  # type: ignore[return-value]


def average_loose(parameters: Sequence[nn.Parameter]) -> None:
    """Averages over the processes the gradients of parameters that are not spread."""
    loose = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    if not loose:
        return
    # On a process whose images need one of them not, it has no gradient; all take part all the same.
    gradients = torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in loose])
    torch.distributed.all_reduce(gradients.div_(torch.distributed.get_world_size()))
    for parameter, gradient in zip(loose, gradients):
        parameter.grad = gradient.clone()


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, whether they are spread or not."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    spread = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    if not spread:
        return nn.utils.get_total_norm(whole)
    norm: Any = nn.utils.get_total_norm(spread)
    return torch.linalg.vector_norm(torch.stack([norm.full_tensor(), nn.utils.get_total_norm(whole)]))


def whole_state(module: nn.Module) -> dict[str, Any]:
    """All weights of a sharded module, on every process; all of them have to ask."""
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True))  # type: ignore[return-value]


def share_buffers(module: nn.Module) -> None:
    """Gives every process the first one's buffers, which are not sharded, such as running statistics."""
    for buffer in module.buffers():
        torch.distributed.broadcast(buffer, src=0)


def parts_of(models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The tensors of a state by name, as this process holds them: of the models, and of the first one's optimizer."""
    first = next(iter(models.values()))
    state: dict[str, Any] = {name: get_model_state_dict(model) for name, model in models.items()}
    state["optimizer"] = get_optimizer_state_dict(first, optimizer)["state"]
    return state


def put_back(state: dict[str, Any], models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """The reverse of ``parts_of``."""
    first = next(iter(models.values()))
    for name, model in models.items():
        set_model_state_dict(model, state[name])
    groups = get_optimizer_state_dict(first, optimizer)["param_groups"]
    set_optimizer_state_dict(first, optimizer, {"state": state["optimizer"], "param_groups": groups})


def spread(
    state: dict[str, Any],
    whole: nn.Module,
    its_optimizer: torch.optim.Optimizer,
    models: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Gives sharded models and their optimizer a state that one process wrote whole, by way of a detector like it."""
    options = StateDictOptions(full_state_dict=True)
    for name, model in models.items():
        set_model_state_dict(model, state[name], options=options)
    its_optimizer.load_state_dict(state["optimizer"])
    first = next(iter(models.values()))
    full = {
        "state": get_optimizer_state_dict(whole, its_optimizer)["state"],
        "param_groups": get_optimizer_state_dict(first, optimizer)["param_groups"],
    }
    set_optimizer_state_dict(first, optimizer, full, options=options)


def read_any(path: Path) -> dict[str, Any]:
    """A state of either kind; of a folder all that is no tensor. Raises DamagedState where it is not whole."""
    return read_plain(path) if path.is_dir() else load_training_state(path)


def write_parts(folder: Path, state: dict[str, Any]) -> None:
    """Writes this process's tensors of a state; all processes together."""
    save(state, checkpoint_id=folder)


def write_plain(folder: Path, values: dict[str, Any]) -> None:
    """Writes the rest of a state, with the checksums of what is there already: it makes the folder whole."""
    save_training_state(folder / PLAIN, {"values": values, "checksums": _checksums(folder)})


def read_plain(folder: Path) -> dict[str, Any]:
    """What ``write_plain`` was given. Raises DamagedState where any file of the folder is missing or changed."""
    content = load_training_state(folder / PLAIN)
    found = _checksums(folder)
    for name, checksum in content["checksums"].items():
        if found.get(name) != checksum:
            raise DamagedState(f"{folder}: not a readable training state: the checksum of {name} differs")
    return content["values"]


def read_parts(folder: Path, state: dict[str, Any], alone: bool) -> None:
    """Reads the tensors of ``state`` from a folder, in place. alone: without the other processes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(state, storage_reader=_TensorsOnly(folder), no_dist=alone)


def _checksums(folder: Path) -> dict[str, int]:
    sums = {}
    for file in sorted(folder.iterdir()):
        if file.name != PLAIN:
            value = 0
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    value = zlib.crc32(block, value)
            sums[file.name] = value
    return sums


class _TensorsOnly(FileSystemReader):
    """Reads a checkpoint of tensors; nothing in it is run."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        content = (Path(self.path) / ".metadata").read_bytes()
        try:
            metadata = _Index(io.BytesIO(content)).load()
        except Exception as error:  # What damaged bytes lead to can be any error.
            raise DamagedState(f"{self.path}: not a readable training state: {error}") from error
        if any(isinstance(entry, BytesStorageMetadata) for entry in metadata.state_dict_metadata.values()):
            raise DamagedState(f"{self.path}: not a readable training state: holds more than tensors")
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Index(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _INDEX_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is not a part of a checkpoint's index")
        return super().find_class(module, name)
