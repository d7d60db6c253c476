"""Where the time of a step goes: a table, and a trace that https://ui.perfetto.dev opens.

The parts of a step are marked where they are by ``torch.profiler.record_function`` under the names of ``PARTS``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from torch._C._autograd import DeviceType
from torch.profiler import profile, record_function, schedule

from ..results.files import write_bytes
from .progress import say
from .text import table

T = TypeVar("T")
PARTS = (
    *("data", "to device", "forward", "losses", "backward", "gradient", "optimizer", "figures"),  # of training
    *("network", "pictures", "files"),  # of prediction
)
"""In the order in which they are shown; ``losses`` lie inside ``forward``, which is shown without them."""
SYNCHRONIZATIONS = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
)
"""What makes the CPU wait for a GPU; on a CPU alone, what would."""
SKIPPED, WARM_UP, MEASURED = 2, 1, 5
TRACE, TABLE = "trace.json", "profile.txt"


class Profiler:
    """Watches a few steps, after the first ones, and writes ``profile.txt`` and ``trace.json`` into ``folder``.

    Without a folder nothing is done. To be used in a ``with`` statement, the steps being what ``steps`` goes through.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.written = False
        self.profile: profile | None = None

    def __enter__(self) -> Profiler:
        if self.folder is not None:
            phases = schedule(wait=SKIPPED, warmup=WARM_UP, active=MEASURED, repeat=1)
            self.profile = profile(schedule=phases, on_trace_ready=self._write)
            self.profile.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.profile is not None:
            self.profile.stop()
            self.profile = None
            if not self.written and error is None:
                say(f"nothing was profiled: it takes more than {SKIPPED + WARM_UP} steps")

    def steps(self, items: Iterable[T]) -> Iterator[T]:
        """The items; what is done with one is a step. Waiting for the next one counts as ``data``."""
        iterator = iter(items)
        while True:
            with record_function("data"):
                item = next(iterator, self)
            if item is self:
                return
            yield item  # type: ignore[misc]
            if self.profile is not None:
                self.profile.step()

    def _write(self, made: profile) -> None:
        assert self.folder is not None
        self.written = True
        self.folder.mkdir(parents=True, exist_ok=True)
        made.export_chrome_trace(str(self.folder / TRACE))
        lines = summary(made)
        write_bytes(self.folder / TABLE, ("\n".join(lines) + "\n").encode())
        say("\n".join(lines))
        say(f"the trace is {self.folder / TRACE}; https://ui.perfetto.dev opens it")


def summary(made: profile) -> list[str]:
    """The table: for every part milliseconds a step on the CPU, on the GPU where there is one, and its share."""
    host: dict[str, float] = {}
    device: dict[str, float] = {}
    counts: dict[str, int] = {}
    waited = 0.0
    walls: list[float] = []
    for event in made.events() or ():
        if event.device_type != DeviceType.CPU:
            continue
        if event.name.startswith("ProfilerStep"):
            walls.append(event.cpu_time_total)
        elif event.name in PARTS:
            host[event.name] = host.get(event.name, 0.0) + event.cpu_time_total
            device[event.name] = device.get(event.name, 0.0) + event.device_time_total
        elif event.name in SYNCHRONIZATIONS:
            counts[event.name] = counts.get(event.name, 0) + 1
            waited += event.cpu_time_total
    steps, wall = max(len(walls), 1), sum(walls)
    for times in (host, device):
        if "losses" in times:
            times["forward"] = times.get("forward", 0.0) - times["losses"]
    host["everything else"] = wall - sum(host.values())
    on_gpu = any(device.values())
    rows = [("part", "ms a step", *(["GPU ms a step"] if on_gpu else []), "share")]
    for name in (*PARTS, "everything else"):
        if name in host:
            gpu = [f"{device.get(name, 0.0) / steps / 1e3:.2f}"] if on_gpu else []
            rows.append((name, f"{host[name] / steps / 1e3:.2f}", *gpu, f"{host[name] / max(wall, 1e-9):.0%}"))
    told = ", ".join(f"{count / steps:g} {name.removeprefix('aten::')}" for name, count in sorted(counts.items()))
    return [
        f"{steps} steps of {wall / steps / 1e3:.2f} ms",
        *table(rows),
        f"synchronizations a step: {told or 'none'}; {waited / steps / 1e3:.2f} ms"
        f"{' of waiting' if on_gpu else ', which would be waiting on a GPU'}",
    ]
