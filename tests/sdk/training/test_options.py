"""What a training does otherwise than its recipe."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest

import sdk
from sdk import cli
from sdk.errors import RunError
from sdk.models.recipe import Optimizer, Schedule
from sdk.models.zoo.tiny import RETINANET
from sdk.training.options import Optimization, Options, grouped_options


def test_what_is_not_given_is_the_recipes():
    assert Optimization().applied_to(RETINANET) == RETINANET


def test_the_schedule_takes_the_place_of_the_recipes():
    falls = Schedule(epochs=24, drops=(16, 22), decay="step")
    cosine = Schedule(epochs=24, decay="cosine")

    def chosen(name: str, own: Schedule) -> Schedule:
        return Optimization(schedule=name).applied_to(replace(RETINANET, schedule=own)).schedule

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
            r"schedule: expected one of step, cosine, one-cycle, flat, found 'cosin' \(did you mean cosine\?\)",
        ),
        ({"optimizer": 3}, "optimizer: expected one of sgd, adam, adamw, found 3"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number of at least 0, found -1.0"),
        ({"clip_norm": 0}, "clip_norm: expected a number above 0, found 0"),
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
        Optimization(optimizer=other).applied_to(RETINANET)
    assert Optimization(optimizer=other, lr=0.1).applied_to(RETINANET).optimizer.kind == other


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
    assert "'step', 'cosine', 'one-cycle', 'flat'" in done.stderr


def test_an_unknown_option_names_the_nearest(shapes, capsys):
    with pytest.raises(TypeError, match=r"shedule: no option of a training \(did you mean schedule\?\)"):
        sdk.fit(shapes, "retinanet_tiny_shapes", shedule="flat")
    with pytest.raises(SystemExit):
        cli.main(["fit", "shapes", "retinanet_tiny_shapes", "--shedule", "flat"])
    assert "--shedule (did you mean --schedule?)" in capsys.readouterr().err


def test_every_option_is_a_keyword_a_flag_and_explained(capsys):
    names = [option.name for options in grouped_options().values() for option in options]
    assert sorted(names) == sorted(option.name for option in fields(Options))
    assert list(inspect.signature(sdk.fit).parameters)[2:] == names
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help"])
    told = capsys.readouterr().out
    for name in names:
        assert f"    {name}: " in str(sdk.fit.__doc__)
        assert name in ("recipe", "callbacks") or f"--{name.replace('_', '-')}" in told


def test_a_given_warm_up_is_kept_as_it_is(tmp_path, shapes, tiny, capsys):
    run = sdk.fit(shapes, tiny(), epochs=2, warmup=5, schedule="flat", workers=0, out=tmp_path / "run")
    rates = [line["lr"] for line in run.history if "lr" in line]
    # 8 steps, of which the recipe's warm-up would take none; this one goes from a thousandth to the full rate.
    assert rates[:6] == pytest.approx([0.02 * (1 - (1 - step / 5) * 0.999) for step in range(6)])
    assert run.manifest["given"]["warmup"] == 5
    again = {"schedule": "flat", "workers": 0, "out": tmp_path / "run", "resume": "auto"}
    with pytest.raises(RunError, match="its options differ"):
        sdk.fit(shapes, tiny(), epochs=2, warmup=3, **again)
    with pytest.raises(RunError, match="its given differs: warmup was 5, is None"):
        sdk.fit(shapes, tiny(), epochs=3, **again)
    sdk.fit(shapes, tiny(), epochs=1, warmup=9, workers=0, out=tmp_path / "short")
    assert "the full learning rate is not reached" in capsys.readouterr().err
