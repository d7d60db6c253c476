"""Several processes: the same losses as one, states that move between them, and what happens when one is lost."""

from __future__ import annotations

import os
import signal

import pytest
from runs import full, losses, ranks, seconds_until_gone, start, told, train, wait_for_step

from sdk.results.manifest import read_manifest

# No statistics over a batch and images of one size, so that no figure depends on which images come together.
SAME = {"frozen": True, "workers": 0, "epochs": 4, "images": 24}
WAYS = {
    "one": {"devices": 1, "batch_size": 4},
    "passes": {"devices": 1, "batch_size": 2, "accumulate": 2},
    "two": {"devices": 2, "batch_size": 2},
    "four": {"devices": 4, "batch_size": 1},
    "fsdp": {"devices": 2, "batch_size": 2, "strategy": "fsdp"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trainings of the same 24 steps of 4 images, by how they were spread."""
    made = {}

    def run(way: str):
        if way not in made:
            made[way] = train(tmp_path_factory.mktemp("ranks") / way, "fcos", **SAME, **WAYS[way])
        return made[way]

    return run


@pytest.mark.parametrize("way", ["two", "four", "fsdp"] if full() else ["two", "fsdp"])
def test_losses_are_those_of_one_process(trained, way):
    expected, found = losses(trained("one")), losses(trained(way))
    assert len(expected) == 24
    assert found == pytest.approx(expected, rel=0, abs=1e-4)
    assert read_manifest(trained(way))["options"]["world_size"] == WAYS[way]["devices"]


MOVES = [(a, b) for a in ("one", "two", "fsdp") for b in ("one", "two", "fsdp", "four") if a != b]


@pytest.mark.parametrize(("before", "after"), MOVES if full() else [("fsdp", "one")])
def test_a_state_moves_to_other_processes_and_goes_on(trained, tmp_path, before, after):
    """Saved with one number of processes and strategy, resumed with another, for an epoch more."""
    expected = trained("one")
    moved, longer = tmp_path / "moved", tmp_path / "longer"
    for folder, source in ((moved, trained(before)), (longer, expected)):
        folder.mkdir()
        os.system(f"cp -r {source}/. {folder}")
    train(longer, "fcos", **{**SAME, **WAYS["one"], "epochs": 5})
    train(moved, "fcos", **{**SAME, **WAYS[after], "epochs": 5})
    assert "resumed with 5 epochs instead of 4" in told(moved)
    assert "the same total batch" in told(moved) or WAYS[before]["batch_size"] == WAYS[after]["batch_size"]
    assert len(losses(moved)) == 30
    assert losses(moved) == pytest.approx(losses(longer), rel=0, abs=1e-4)


@pytest.mark.parametrize("lost", [0, 1] if full() else [1])
def test_a_lost_rank_ends_the_others_within_a_minute(tmp_path, lost):
    out = tmp_path / "run"
    process = start(out, "fcos", devices=2, images=200, epochs=50, workers=0)
    wait_for_step(process, out, 10)
    found = ranks(process)
    assert len(found) == 2
    os.kill(found[lost], signal.SIGKILL)
    assert seconds_until_gone(process) < 60
    assert "the connection to another process was lost" in told(out)
    assert "resume='auto' goes on from the last state" in told(out)
