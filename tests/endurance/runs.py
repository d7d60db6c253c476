"""Trainings in processes of their own: started, followed, killed, compared. ENDURE=full asks for full numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from sdk.results.manifest import read_metrics
from sdk.results.state import load_training_state

SCRIPT = Path(__file__).with_name("training.py")


def full() -> bool:
    """Whether the full numbers of runs are asked for, as scripts/endure does."""
    return os.environ.get("ENDURE") == "full"


def start(out: Path, family: str, **options) -> subprocess.Popen:
    """A training in a process group of its own, so that all of its ranks are found again."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(out), family, json.dumps(options)],
        stderr=subprocess.STDOUT,
        stdout=open(f"{out}.log", "a"),
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,
    )


def told(out: Path) -> str:
    """What all trainings of a folder have said."""
    return Path(f"{out}.log").read_text()


def finish(process: subprocess.Popen, out: Path, timeout: float = 240) -> None:
    """Waits for a training; what it said if it fails."""
    assert process.wait(timeout) == 0, told(out)


def train(out: Path, family: str, **options) -> Path:
    """A training from its start to its end."""
    finish(start(out, family, **options), out)
    return out


def wait_for_step(process: subprocess.Popen, out: Path, step: int) -> None:
    """Returns when a training has come to a step, or has ended."""
    end = time.monotonic() + 120
    while process.poll() is None:
        lines = read_metrics(out / "metrics.jsonl")
        if lines and lines[-1]["step"] >= step:
            return
        assert time.monotonic() < end, told(out)
        time.sleep(0.01)


def members(process: subprocess.Popen) -> list[int]:
    """Ids of the processes of a training that are still there: its ranks and their workers."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[2]) == process.pid and fields[0] != "Z":
            found.append(int(folder.name))
    return sorted(found)


def ranks(process: subprocess.Popen) -> list[int]:
    """Ids of the processes of a training that train: the first, and those that it started with the same script."""
    own = []
    for number in members(process):
        try:
            parent = int(Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[1])
            environment = Path(f"/proc/{number}/environ").read_text()
        except OSError:
            continue
        if number == process.pid or (parent == process.pid and "LOCAL_RANK=" in environment):
            own.append(number)
    return own


def seconds_until_gone(process: subprocess.Popen, most: float = 70) -> float:
    """How long the other processes of a training lived on; those that outlive ``most`` seconds are killed."""
    begin = time.monotonic()
    while time.monotonic() - begin < most:
        process.poll()
        if not members(process):
            return time.monotonic() - begin
        time.sleep(0.1)
    for number in members(process):
        os.kill(number, signal.SIGKILL)
    return time.monotonic() - begin


def tensors(state: object, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of nested dicts and lists by its path."""
    if isinstance(state, torch.Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {path: value for key, part in items for path, value in tensors(part, f"{name}/{key}").items()}


def differing(one: Path, other: Path) -> list[str]:
    """What of two runs is not equal bit by bit: weights, averages, optimizer, figures, files for use."""
    first, second = (load_training_state(folder / "last.pt") for folder in (one, other))
    mine, theirs = tensors(first), tensors(second)
    found = [name for name in mine.keys() | theirs.keys() if name not in theirs or name not in mine]
    found += [name for name in mine.keys() & theirs.keys() if not torch.equal(mine[name], theirs[name])]
    found += [name for name in ("step", "best", "scorings_without_gain") if first[name] != second[name]]
    for name in ("best.safetensors", "last.safetensors"):
        mine, theirs = load_file(one / name), load_file(other / name)
        found += [f"{name} {key}" for key in mine if not torch.equal(mine[key], theirs[key])]
    same = read_metrics(one / "metrics.jsonl") == read_metrics(other / "metrics.jsonl")
    return found if same else [*found, "metrics.jsonl"]


def losses(folder: Path) -> list[float]:
    """The loss of every step."""
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
