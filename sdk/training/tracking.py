"""Figures of a training, as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..results.files import write_bytes
from ..results.manifest import METRICS, read_metrics

if TYPE_CHECKING:
    from ..evaluators.base import Report


class MetricsLog:
    """Figures of a training as JSON lines and for TensorBoard.

    Opened at ``step``: later lines are of a training that was broken off, and go.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / METRICS
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = open(path, "a")  # noqa: SIM115
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def step(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Figures of one step."""
        self._write({"step": step, "epoch": epoch, **figures})
        for name, value in figures.items():
            self.board.add_scalar(f"train/{name}", value, step)

    def report(self, step: int, epoch: int, report: Report) -> None:
        """Figures of one scoring."""
        figures = {name: figure.value for name, figure in report.metrics.items()}
        self._write({"step": step, "epoch": epoch, "protocol": report.protocol, "metrics": figures})
        for name, value in figures.items():
            if value is not None:
                self.board.add_scalar(f"val/{name}", value, step)

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        self.board.close()
