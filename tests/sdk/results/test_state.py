"""Training states: atomic, kept in number, and the one before where the newest is damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sdk.errors import RunError
from sdk.results.files import remove_unfinished
from sdk.results.state import DamagedState, kept_states, load_training_state, newest_whole_state, save_training_state


def saved(folder: Path, *steps: int, keep: int = 2, size: int = 2000) -> Path:
    for step in steps:
        save_training_state(folder / "last.pt", {"step": step, "a": torch.full((size,), float(step))}, keep)
    return folder


def steps(folder: Path) -> list[int]:
    return [load_training_state(path)["step"] for path in kept_states(folder)]


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_newest_states_stay(tmp_path, keep):
    assert steps(saved(tmp_path, 1, 2, 3, 4, 5, keep=keep)) == [5, 4, 3, 2, 1][:keep]
    assert len(list(tmp_path.iterdir())) == keep


def test_fewer_states_stay_when_fewer_are_wished(tmp_path):
    saved(tmp_path, 1, 2, 3, keep=3)
    assert steps(saved(tmp_path, 4, keep=1)) == [4]


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_state_is_set_aside_and_the_one_before_used(tmp_path, seed):
    """Cut off anywhere, or one bit changed among the tensors, which torch.load alone would not notice."""
    newest = saved(tmp_path, 1, 2) / "last.pt"
    rng = np.random.default_rng(seed)
    content = bytearray(newest.read_bytes())
    if seed % 2:
        content = content[: int(rng.integers(len(content)))]
    else:
        content[content.find(np.float32(2).tobytes() * 10) + int(rng.integers(4000))] ^= 1 << int(rng.integers(8))
    newest.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"last\.pt: not a readable training state.*now last\.damaged\.pt"):
        path = newest_whole_state(tmp_path)
    assert load_training_state(path)["step"] == 1
    assert (tmp_path / "last.damaged.pt").read_bytes() == content
    assert steps(saved(tmp_path, 3)) == [3, 1]


def test_when_no_state_is_whole_all_stay_where_they_are(tmp_path):
    saved(tmp_path, 1, 2)
    for path in kept_states(tmp_path):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=r"cannot be resumed: .*last\.pt: not a readable.*last\.1\.pt: not a readable"):
        newest_whole_state(tmp_path)
    assert len(kept_states(tmp_path)) == 2
    with pytest.raises(RunError, match="there is no training state"):
        newest_whole_state(tmp_path / "elsewhere")


def test_damage_and_what_cannot_be_read_are_told_apart(tmp_path):
    with pytest.raises(RunError, match="cannot be read: No such file") as error:
        load_training_state(tmp_path / "last.pt")
    assert not isinstance(error.value, DamagedState)


@pytest.fixture
def tmpfs(tmp_path):
    """Three megabytes; only root can mount them."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_and_the_states_before_stay(tmpfs):
    saved(tmpfs, 1, 2, size=200_000)
    with pytest.raises(RunError, match=r"last\.pt: cannot be written: No space left on device \(\d+ MB free there\)"):
        saved(tmpfs, 3, size=500_000)
    assert steps(tmpfs) == [2, 1]
    assert len(list(tmpfs.iterdir())) == 2
    assert load_training_state(newest_whole_state(tmpfs))["step"] == 2


def test_a_read_only_folder_is_said_and_the_states_before_stay(tmpfs):
    saved(tmpfs, 1, 2)
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    with pytest.raises(RunError, match=r"last\.pt: cannot be written: Read-only file system"):
        saved(tmpfs, 3)
    assert load_training_state(newest_whole_state(tmpfs))["step"] == 2


WRITER = """
import sys, torch
from pathlib import Path
from sdk.results.state import save_training_state
step = 0
while True:
    step += 1
    save_training_state(Path(sys.argv[1]) / "last.pt", {"step": step, "a": torch.full((300_000,), float(step))}, 2)
    print(step, flush=True)
"""


def interrupted_writes(folder: Path, times: int, seed: int = 0) -> list[int]:
    """Kills a process that does nothing but write states, ``times`` times; the step that is loaded each time."""
    rng = np.random.default_rng(seed)
    loaded = []
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        written = [first.strip(), *process.communicate()[0].split()]
        remove_unfinished(folder)
        state = load_training_state(newest_whole_state(folder))
        assert state["step"] >= int(written[-1]), "a state that was written is lost"
        assert (state["a"] == state["step"]).all()
        assert len(list(folder.iterdir())) <= 2
        loaded.append(state["step"])
    return loaded


def test_killed_while_writing(tmp_path):
    assert len(interrupted_writes(tmp_path, 3)) == 3


@pytest.mark.long
def test_killed_while_writing_fifty_times(tmp_path):
    assert len(interrupted_writes(tmp_path, 50)) == 50
