"""Figures of a training: as JSON lines always, and for the tools that show them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..results.files import write_bytes
from ..results.manifest import METRICS, read_manifest, read_metrics
from .callbacks import Callback
from .options import LOGGERS

if TYPE_CHECKING:
    from ..evaluators.base import Report
    from ..results.run import Run
    from .loop import Training
    from .readout import StepFigures


class MetricsLog(Callback):
    """Figures of a training as JSON lines. Those after the step at which it starts are of one that was broken off, and
    go."""

    def on_fit_start(self, training: Training) -> None:
        path = training.folder / METRICS
        kept = [line for line in read_metrics(path) if line["step"] <= training.step]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = open(path, "a")  # noqa: SIM115

    def on_step(self, training: Training, figures: StepFigures) -> None:
        if figures.step % training.plan.log_every == 0:
            self._write({"step": figures.step, "epoch": figures.epoch, "lr": figures.lr, **figures.losses})

    def on_validation(self, training: Training, report: Report) -> None:
        values = {name: figure.value for name, figure in report.metrics.items()}
        line = {"step": training.step, "epoch": training.current_epoch}
        self._write({**line, "protocol": report.protocol, "metrics": values})

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def on_fit_end(self, run: Run) -> None:
        self.file.close()


class Logger(Callback):
    """Hands the same figures to a tool: ``train/...`` of steps and ``val/...`` of scorings. A subclass writes ``open``,
    ``log`` and ``close``."""

    def open(self, training: Training) -> None:
        """Before the first figures."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a step, by name."""

    def close(self) -> None:
        """After the last figures."""

    def on_fit_start(self, training: Training) -> None:
        self.open(training)

    def on_step(self, training: Training, figures: StepFigures) -> None:
        if figures.step % training.plan.log_every == 0:
            values = {"lr": figures.lr, **figures.losses}
            self.log(figures.step, {f"train/{name}": value for name, value in values.items()})

    def on_validation(self, training: Training, report: Report) -> None:
        values = {name: figure.value for name, figure in report.metrics.items()}
        self.log(training.step, {f"val/{name}": value for name, value in values.items() if value is not None})

    def on_fit_end(self, run: Run) -> None:
        self.close()


class TensorBoard(Logger):
    """Into ``tensorboard`` in the run folder."""

    def open(self, training: Training) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(training.folder / "tensorboard"), purge_step=training.step + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.board.close()


class Csv(Logger):
    """Into ``metrics.csv`` in the run folder, a figure a row: step, name, value."""

    def open(self, training: Training) -> None:
        path = training.folder / "metrics.csv"
        kept = []
        if path.is_file():
            with open(path, newline="") as file:
                kept = [row for row in list(csv.reader(file))[1:] if len(row) == 3 and int(row[0]) <= training.step]
        self.file = open(path, "w", newline="")  # noqa: SIM115
        self.rows = csv.writer(self.file)
        self.rows.writerows([("step", "name", "value"), *kept])

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.rows.writerows((step, name, value) for name, value in figures.items())
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class WeightsAndBiases(Logger):
    """As a run of Weights & Biases; its variables (``WANDB_MODE=offline``, ``WANDB_PROJECT``) are heeded."""

    def open(self, training: Training) -> None:
        folder = training.folder
        config = read_manifest(folder)["given"]
        self.run = import_module("wandb").init(dir=str(folder), name=folder.name, group=folder.name, config=config)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow(Logger):
    """As a run of MLflow, where its environment variables say (``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``)."""

    def open(self, training: Training) -> None:
        self.mlflow = import_module("mlflow")
        nested = self.mlflow.active_run() is not None
        self.mlflow.start_run(run_name=training.folder.name, nested=nested)
        given = read_manifest(training.folder)["given"]
        self.mlflow.log_params({name: value for name, value in given.items() if value is not None})

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        # Its names have no @, as in bbox/AR@100.
        self.mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in figures.items()}, step=step)

    def close(self) -> None:
        self.mlflow.end_run()


class Aim(Logger):
    """As a run of Aim, in the repository ``.aim`` of the working folder."""

    def open(self, training: Training) -> None:
        self.run = import_module("aim").Run(experiment=training.folder.name)
        self.run["given"] = read_manifest(training.folder)["given"]

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.run.track(value, name=name, step=step)

    def close(self) -> None:
        self.run.close()


KINDS: dict[str, type[Logger]] = dict(zip(LOGGERS, (TensorBoard, Csv, WeightsAndBiases, MLflow, Aim), strict=True))


def made_loggers(names: Sequence[str]) -> list[Logger]:
    """The loggers of these names. Raises RunError where a package, which has the logger's name, is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise RunError(f"loggers: {name} needs a package that is not installed: pip install {name}")
    return [KINDS[name]() for name in names]
