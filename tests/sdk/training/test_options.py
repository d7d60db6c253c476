"""What a training does otherwise than its recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

import sdk
from sdk.models.recipe import Optimizer, Schedule
from sdk.models.zoo.tiny import RETINANET
from sdk.training.options import Optimization


def test_what_is_not_given_is_the_recipes():
    assert Optimization().applied_to(RETINANET, lr=None) == RETINANET


def test_the_schedule_takes_the_place_of_the_recipes():
    falls = Schedule(epochs=24, drops=(16, 22), decay="step")
    cosine = Schedule(epochs=24, decay="cosine")

    def chosen(name: str, own: Schedule) -> Schedule:
        return Optimization(schedule=name).applied_to(replace(RETINANET, schedule=own), lr=None).schedule

    assert chosen("step", falls) == falls
    assert chosen("step", cosine) == falls
    assert chosen("cosine", falls).decay == "cosine"
    assert chosen("flat", falls).drops == chosen("flat", cosine).drops == ()
    assert chosen("flat", cosine).decay == "step"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"schedule": "cosin"},
            r"schedule: expected one of step, cosine, flat, found 'cosin' \(did you mean cosine\?\)",
        ),
        ({"optimizer": 3}, "optimizer: expected one of sgd, adam, adamw, found 3"),
        ({"weight_decay": -1.0}, "weight_decay: expected zero or more, found -1.0"),
        ({"clip_norm": 0}, "clip_norm: expected a number above zero, found 0"),
        ({"clip_norm": "5"}, "clip_norm: expected a finite number, found '5'"),
        ({"weight_decay": float("nan")}, "weight_decay: expected a finite number, found nan"),
    ],
)
def test_a_wrong_value_is_named(given, told):
    with pytest.raises(ValueError, match=told):
        Optimization(**given)


def test_another_optimizer_needs_a_learning_rate():
    other = "sgd" if RETINANET.optimizer.kind != "sgd" else "adam"
    with pytest.raises(ValueError, match=f"optimizer: {other} needs lr= too"):
        Optimization(optimizer=other).applied_to(RETINANET, lr=None)
    assert Optimization(optimizer=other).applied_to(RETINANET, lr=0.1).optimizer.kind == other


def test_a_run_is_trained_with_them_and_says_so(tmp_path, capsys):
    shapes = sdk.datasets.Shapes(8, size=(64, 64), max_objects=3)
    given = {"optimizer": "sgd", "lr": 0.001, "schedule": "flat", "weight_decay": 0.0, "clip_norm": 1.0}
    run = sdk.fit(shapes, "retinanet_tiny_shapes", epochs=1, batch_size=4, workers=0, out=tmp_path / "run", **given)
    assert "then flat" in capsys.readouterr().err
    manifest = json.loads((run.folder / "manifest.json").read_text())
    optimizer = manifest["recipe"]["optimizer"]
    assert (optimizer["kind"], optimizer["weight_decay"], optimizer["clip_norm"]) == ("sgd", 0.0, 1.0)
    assert optimizer["momentum"] == Optimizer().momentum
    assert manifest["options"]["schedule"]["drops"] == []


def test_the_shell_refuses_an_unknown_choice_without_torch():
    code = "import sys; from sdk import cli; import sdk.training.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    call = [sys.executable, "-m", "sdk.cli", "fit", "data", "model", "--schedule", "cosin"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 2
    assert "'step', 'cosine', 'flat'" in done.stderr
