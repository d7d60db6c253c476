"""When states are written, and that large ones are written beside the training."""

from __future__ import annotations

import threading

import pytest
import torch

from sdk.errors import RunError
from sdk.results.state import load_training_state
from sdk.training import saving
from sdk.training.options import Saving
from sdk.training.saving import StateWriter, copied, size_of


@pytest.mark.parametrize(
    ("name", "value"),
    [("save_every", 0), ("save_every", 1.5), ("keep_last", 0), ("keep_best", True), ("save_minutes", 0.0)],
)
def test_numbers_that_cannot_be(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a"):
        Saving(**{name: value})


def test_a_large_state_is_written_as_it_was_while_training_goes_on(tmp_path, monkeypatch):
    weights = torch.zeros(1000)
    state = {"model": {"a": weights}, "list": [weights, 3]}
    monkeypatch.setattr(saving, "LARGE_BYTES", size_of(state))
    may_write, write = threading.Event(), saving.save_training_state
    monkeypatch.setattr(saving, "save_training_state", lambda *given: may_write.wait(20) and write(*given))
    writer = StateWriter(tmp_path, keep=2)
    writer.write(state)
    weights.add_(1)  # the next step
    may_write.set()
    writer.finish()
    loaded = load_training_state(tmp_path / "last.pt")
    assert not loaded["model"]["a"].any()
    assert not loaded["list"][0].any()


def test_what_goes_wrong_beside_the_training_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "LARGE_BYTES", 1)
    writer = StateWriter(tmp_path / "missing", keep=2)
    writer.write({"a": torch.zeros(10)})
    with pytest.raises(RunError, match=r"last\.pt: cannot be written: No such file"):
        writer.write({"a": torch.zeros(10)})
    writer.finish()  # the second failed too, but was never begun


def test_copies_share_nothing():
    state = {"a": torch.zeros(3), "b": [torch.zeros(2), {"c": (torch.zeros(1), 5, None)}]}
    copy = copied(state)
    assert size_of(copy) == size_of(state) == 24
    copy["b"][1]["c"][0].add_(1)
    assert not state["b"][1]["c"][0].any()
