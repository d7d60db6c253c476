"""What every topic does alike: alternate between the two sides, and say on which machine.

A topic is a file of this folder with ``main(arguments) -> dict``; the dict is what ``--out`` writes as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from sdk.results.manifest import versions

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "pycocotools", "mmdet", "mmcv")
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One thing, done by us and by what others would use.

    name: what is done. ours, peers: calls that do it once, by the peer's name. target: how many times faster than a
    peer we are to be. memory: the largest share of a peer's peak memory that we may need. per: things (images) that
    one call does; times are given for one of them.
    """

    name: str
    ours: Callable[[], object]
    peers: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    per: int = 1


def parser(topic: str, text: str, turns: int = 5) -> argparse.ArgumentParser:
    """The command line that topics share; a topic adds its own options."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{topic}", description=text)
    made.add_argument("--turns", type=int, default=turns, help=f"times that each side runs (default: {turns})")
    made.add_argument("--quick", action="store_true", help="small inputs and one turn: whether it runs, not how fast")
    made.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    return made


def run(topic: str, cases: Iterable[Case], options: argparse.Namespace, skipped: Mapping[str, str]) -> dict[str, Any]:
    """Measures cases, shows them as a table as it goes, writes ``options.out``; the figures.

    skipped: why peers were left out, by their name.
    """
    before = load()
    rows = []
    for case in cases:
        rows.append(measured(case, 1 if options.quick else options.turns))
        print("\n".join(row_lines(rows[-1])), flush=True)
    for name, reason in skipped.items():
        print(f"left out: {name} ({reason})")
    found = {
        "topic": topic,
        "machine": machine(),
        "versions": versions(PACKAGES),
        "load": {"before": before, "after": load()},
        "quick": options.quick,
        "skipped": dict(skipped),
        "rows": rows,
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return found


def measured(case: Case, turns: int) -> dict[str, Any]:
    """The figures of a case: all sides run once to warm up, then in turns."""
    sides = {"ours": case.ours, **case.peers}
    peaks = {name: peak_memory(call) for name, call in sides.items()}
    walls: dict[str, list[float]] = {name: [] for name in sides}
    cpus: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, call in sides.items():
            wall, cpu = timed(call)
            walls[name].append(wall / case.per)
            cpus[name].append(cpu / case.per)
    figures = {
        name: {
            "median_s": statistics.median(walls[name]),
            "lowest_s": min(walls[name]),
            "highest_s": max(walls[name]),
            "cpu_s": min(cpus[name]),
            "peak_mib": peaks[name],
        }
        for name in sides
    }
    peers = {
        name: {
            **figures[name],
            "times_faster": figures[name]["median_s"] / figures["ours"]["median_s"],
            "target": case.target.get(name),
            "memory_target": case.memory.get(name),
        }
        for name in case.peers
    }
    return {"name": case.name, "per": case.per, "turns": turns, "ours": figures["ours"], "peers": peers}


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of this process's CPU time with all its threads."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_memory(call: Callable[[], object]) -> float | None:
    """MiB by which the resident set grows at most during ``call``; none where Linux does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def read(name: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    if not os.access(reset, os.W_OK):
        call()
        return None
    # What earlier calls freed goes back to the system, or it would be used again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")
    before = read("VmRSS")
    result = call()
    grown = read("VmHWM") - before
    del result
    return grown / MIB


def machine() -> dict[str, Any]:
    """Where this runs: processor, cores that may be used, threads of PyTorch, GPU."""
    import torch

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
    }


def load() -> float | None:
    """Mean number of waiting processes over the last minute; none where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def seconds(value: float) -> str:
    """A time as people read it."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.2f} ms" if value >= 1e-3 else f"{value * 1e6:.0f} µs"


HEADER = ("what", "who", "median", "lowest to highest", "CPU", "memory", "we are faster", "goal")


def row_cells(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A measured case as rows under ``HEADER``: ours first, then every peer."""
    cells = []
    for name, side in {"ours": row["ours"], **row["peers"]}.items():
        spread = f"{seconds(side['lowest_s'])} to {seconds(side['highest_s'])}"
        memory = "" if side["peak_mib"] is None else f"{side['peak_mib']:.0f} MiB"
        faster = f"{side['times_faster']:.2f} times" if "times_faster" in side else ""
        goal = "" if side.get("target") is None else f"{side['target']:g} times"
        if side.get("memory_target") is not None:
            goal += f"{', ' if goal else ''}{side['memory_target']:.2f} of the memory"
        first = row["name"] if name == "ours" else ""
        cells.append((first, name, seconds(side["median_s"]), spread, seconds(side["cpu_s"]), memory, faster, goal))
    return cells


def row_lines(row: Mapping[str, Any]) -> list[str]:
    """A measured case as text."""
    lines = [row["name"]]
    for _, name, median, spread, cpu, memory, faster, goal in row_cells(row):
        told = [
            median,
            f"({spread})",
            f"CPU {cpu}",
            memory,
            faster and f"ours is {faster} faster",
            goal and f"goal {goal}",
        ]
        lines.append(f"  {name:12} " + "  ".join(part for part in told if part))
    return lines


def missing(*packages: str) -> str | None:
    """Why a peer that needs these packages is left out; none where they are there."""
    for name in packages:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{name} is not installed"
    return None
