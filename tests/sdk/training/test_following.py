"""How long a training takes, when it is scored, and who is told of it."""

from __future__ import annotations

import csv
import math
from importlib.util import find_spec

import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sdk
from sdk.errors import RunError
from sdk.models.recipe import Optimizer
from sdk.results.manifest import read_metrics
from sdk.results.state import load_training_state
from sdk.training.callbacks import Callback
from sdk.training.options import Options


class Told(Callback):
    """Writes down what it is told, and ends the training after a step of its choice."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.calls = last, []

    def on_fit_start(self, training):
        self.calls.append(("start", training.step))

    def on_step(self, training, figures):
        self.calls.append(("step", figures.step))
        if figures.step == self.last:
            training.end("by the test")

    def on_validation(self, training, report):
        self.calls.append((report.main, training.step))

    def on_epoch_end(self, training):
        self.calls.append(("epoch", training.epoch))

    def on_fit_end(self, run):
        self.calls.append(("end", run.folder.name))


def test_steps_decide_over_epochs_and_the_cosine_ends_at_the_last(tmp_path, shapes, tiny):
    """An epoch has 4 steps."""
    told, out = Told(), tmp_path / "run"
    run = sdk.fit(shapes, tiny(), max_steps=6, schedule="cosine", warmup=0, workers=0, out=out, callbacks=[told])
    rates = [line["lr"] for line in run.history if "lr" in line]
    assert rates == pytest.approx([0.02 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)])
    assert [(line["step"], line["epoch"]) for line in run.history if "metrics" in line] == [(4, 1), (6, 2)]
    state = load_training_state(out / "last.pt")
    assert (state["step"], state["epoch"], state["epoch_start"]) == (6, 1, 4)
    steps = [("step", step) for step in range(1, 7)]
    expected = [("start", 0), *steps[:4], ("bbox/AP", 4), ("epoch", 1), *steps[4:], ("bbox/AP", 6), ("epoch", 1)]
    assert told.calls == [*expected, ("end", "run")]

    # More of them: the rest of the epoch that was cut short is not left out.
    again = {"schedule": "cosine", "warmup": 0, "workers": 0, "out": out, "resume": "auto"}
    run = sdk.fit(shapes, tiny(), max_steps=8, **again)
    state = load_training_state(out / "last.pt")
    assert (state["step"], state["epoch"]) == (8, 2)
    assert [line["step"] for line in run.history if "lr" in line] == list(range(1, 9))
    with pytest.raises(RunError, match="its options differ"):
        sdk.fit(shapes, tiny(), max_steps=7, **again)


def test_cut_short_and_gone_on_with_is_as_never_cut(tmp_path, shapes, tiny):
    options = {"epochs": 2, "schedule": "flat", "warmup": 0, "workers": 0}
    whole = sdk.fit(shapes, tiny(), out=tmp_path / "whole", **options)
    sdk.fit(shapes, tiny(), out=tmp_path / "parts", callbacks=[Told(last=3)], **options)
    assert load_training_state(tmp_path / "parts/last.pt")["epoch"] == 0
    parts = sdk.fit(shapes, tiny(), out=tmp_path / "parts", resume="auto", **options)
    first, second = (load_file(run.folder / "last.safetensors") for run in (whole, parts))
    assert all((first[name] == second[name]).all() for name in first)


def test_time_ends_a_training_with_its_weights_kept(tmp_path, shapes, tiny, capsys):
    run = sdk.fit(shapes, tiny(), max_time=1e-6, workers=0, out=tmp_path / "run")
    assert [line["step"] for line in run.history if "lr" in line] == [1]
    assert [line["step"] for line in run.history if "metrics" in line] == [1]
    assert (run.folder / "best.safetensors").is_file()
    assert "ended at step 1 after 1e-06 minutes" in capsys.readouterr().err


def test_scored_every_second_epoch_and_at_the_end(tmp_path, shapes, tiny):
    kept = []

    class Look(Callback):
        def on_epoch_end(self, training):
            best, last = (load_file(training.folder / f"{name}.safetensors") for name in ("best", "last"))
            kept.append(all((best[name] == last[name]).all() for name in best))

    options = {"epochs": 5, "val_every": 2, "monitor": "bbox/AR@100", "callbacks": [Look()], "workers": 0}
    run = sdk.fit(shapes, tiny(), out=tmp_path / "run", **options)
    scored = [line for line in run.history if "metrics" in line]
    assert [line["epoch"] for line in scored] == [2, 4, 5]
    figures = [line["metrics"]["bbox/AR@100"] for line in scored]
    # An epoch that is not scored is never the best, but for those before the first scoring.
    assert kept == [True, True, False, figures[1] > figures[0], figures[2] > max(figures[:2])]


def test_patience_counts_scorings_of_the_figure_that_is_watched(tmp_path, shapes, tiny):
    model = tiny(optimizer=Optimizer(lr=0.0))
    sdk.fit(shapes, model, epochs=6, val_every=2, monitor="bbox/AP50", patience=1, workers=0, out=tmp_path / "run")
    assert load_training_state(tmp_path / "run/last.pt")["epoch"] == 4
    with pytest.raises(
        RunError, match=r"monitor: expected one of bbox/AP, .*found 'bbox/AP5' \(did you mean bbox/AP50"
    ):
        sdk.fit(shapes, tiny(), out=tmp_path / "other", monitor="bbox/AP5")
    with pytest.raises(RunError, match="monitor: bbox/AP is a figure of a scoring, and there is no validation set"):
        sdk.fit(sdk.datasets.subset(shapes, range(8)), tiny(), out=tmp_path / "other", monitor="bbox/AP")
    assert not (tmp_path / "other").exists()


def test_what_is_no_callback_or_logger_is_said(shapes, tiny):
    with pytest.raises(ValueError, match=r"callbacks\[1\]: .*has no on_fit_start, on_step, .*expected a subclass"):
        sdk.fit(shapes, tiny(), callbacks=[Told(), object()])
    with pytest.raises(ValueError, match=r"loggers: expected some of .*found 'wandbb' \(did you mean wandb\?\)"):
        Options(loggers=["wandbb"])
    with pytest.raises(ValueError, match="loggers: expected a list of names, found None"):
        Options(loggers=None)
    assert Options(loggers="csv,wandb").loggers == ("csv", "wandb")
    for name in ("wandb", "mlflow", "aim"):
        if find_spec(name) is None:
            with pytest.raises(RunError, match=f"loggers: {name} needs a package"):
                sdk.fit(shapes, tiny(), loggers=[name])


def test_figures_are_the_same_everywhere(tmp_path, shapes, tiny):
    options = {"loggers": ["csv", "tensorboard"], "workers": 0, "out": tmp_path / "run"}
    sdk.fit(shapes, tiny(), epochs=1, **options)
    run = sdk.fit(shapes, tiny(), epochs=2, resume="auto", **options)
    expected = {}
    for line in run.history:
        values = line["metrics"] if "metrics" in line else {n: v for n, v in line.items() if n not in ("step", "epoch")}
        part = "val" if "metrics" in line else "train"
        expected |= {(line["step"], f"{part}/{name}"): value for name, value in values.items() if value is not None}
    with open(run.folder / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "name", "value"]
    assert {(int(step), name): float(value) for step, name, value in rows[1:]} == expected
    board = EventAccumulator(str(run.folder / "tensorboard"))
    board.Reload()
    shown = {(event.step, tag): event.value for tag in board.Tags()["scalars"] for event in board.Scalars(tag)}
    assert shown == {key: pytest.approx(value, rel=1e-6) for key, value in expected.items()}


@pytest.mark.parametrize("name", ["wandb", "mlflow", "aim"])
def test_tools_that_are_installed_take_the_figures_offline(tmp_path, shapes, tiny, name, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = sdk.fit(shapes, tiny(), epochs=1, workers=0, loggers=[name], out=tmp_path / "run")
    ap = next(line["metrics"]["bbox/AP"] for line in run.history if "metrics" in line)
    if name == "wandb":
        assert list((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    elif name == "mlflow":
        import mlflow

        (found,) = mlflow.MlflowClient().search_runs(["0"])
        assert found.data.metrics["val/bbox/AP"] == ap
        assert found.data.params["epochs"] == "1"
    else:
        import aim

        assert len(aim.Repo(str(tmp_path)).list_all_runs()) == 1


def test_optuna_prunes_a_training(tmp_path, shapes, tiny):
    optuna = pytest.importorskip("optuna")

    class Pruning(Callback):
        def on_validation(self, training, report):
            trial.report(report["bbox/AP"], training.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

    trial = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(lower=1.1)).ask()
    with pytest.raises(optuna.TrialPruned):
        sdk.fit(shapes, tiny(), epochs=2, workers=0, callbacks=[Pruning()], out=tmp_path / "run")
    assert [line["step"] for line in read_metrics(tmp_path / "run/metrics.jsonl")][-1] == 4
