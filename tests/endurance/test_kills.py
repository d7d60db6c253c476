"""Killed at random moments, and resumed, a training ends with the same bits."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from runs import differing, finish, full, seconds_until_gone, start, train, wait_for_step

FAMILIES = ("retinanet", "fcos", "faster_rcnn", "mask_rcnn")
# Full: 40 runs, five of each family with one process and five with two.
CASES = (
    [(f, devices, seed) for f in FAMILIES for devices in (1, 2) for seed in range(5)] if full() else [("fcos", 2, 0)]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nobody disturbed."""
    made = {}

    def run(family: str, devices: int):
        if (family, devices) not in made:
            out = tmp_path_factory.mktemp("whole") / f"{family}-{devices}"
            made[family, devices] = train(out, family, devices=devices)
        return made[family, devices]

    return run


@pytest.mark.parametrize(("family", "devices", "seed"), CASES)
def test_killed_at_random_moments(whole, tmp_path, family, devices, seed):
    rng = np.random.default_rng([seed, devices, FAMILIES.index(family)])
    undisturbed = whole(family, devices)
    steps = 36 if devices == 1 else 18
    broken = tmp_path / "broken"
    kills = 0
    for step in sorted(rng.integers(1, steps, size=2 if full() else 1)):
        process = start(broken, family, devices=devices)
        wait_for_step(process, broken, int(step))
        time.sleep(rng.uniform(0, 0.1))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        assert seconds_until_gone(process) < 60, "a rank outlived the one that was killed"
    finish(start(broken, family, devices=devices), broken)
    assert kills > 0
    assert differing(undisturbed, broken) == []
