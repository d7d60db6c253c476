"""Many devices: a process for each, which take shards of the images one after the other."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from typing import Any

import cv2
import torch

from ..errors import RunError, SdkError
from ..results.run import load
from ..results.weights import Trained
from .pipeline import Looked, Settings, look
from .running import cores, ready, single_device
from .shards import Journal, packed, shard_images, unpacked
from .sources import Source, batches

Devices = int | str | Sequence[int]


def named_devices(devices: Devices, device: str | None) -> list[str]:
    """The device of each process.

    Args:
        devices: how many, which (``[0, 2]``), or ``auto``: every GPU, else one process.
        device: ``cpu`` or ``cuda``; a GPU where there is one.

    Raises:
        SdkError: where there are not so many.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if ":" in kind:
        raise SdkError(f"device: expected a kind such as cpu or cuda beside devices={devices!r}, found {kind!r}")
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if devices in ("auto", "-1", -1):
        devices = there
    if isinstance(devices, str):
        devices = [int(part) for part in devices.split(",")] if "," in devices else int(devices)
    if isinstance(devices, int):
        if isinstance(devices, bool) or devices < 1:
            raise SdkError(f"devices: expected a number from 1 on, found {devices!r}")
        devices = range(devices)
    if kind != "cuda":
        return [kind] * len(devices)
    if unknown := [index for index in devices if not 0 <= index < there]:
        raise SdkError(f"devices: there is no GPU {unknown[0]}; this machine has {there}")
    return [f"cuda:{index}" for index in devices]


@dataclass(frozen=True)
class Job:
    """What every process has to know. what: the detector, as of ``load``, or where it is read from."""

    what: Any
    settings: Settings
    journal: Journal | None = None

    def look(self, trained: Trained, sources: Sequence[Source], number: int) -> bytes:
        """What is found in the images of a shard, kept in the journal."""
        content = packed(list(look(trained, sources, self.settings)))
        if self.journal is not None:
            self.journal.write(number, content)
        return content


def look_in_processes(job: Job, sources: Iterable[Source], devices: Sequence[str]) -> Generator[Looked]:
    """As ``look``, without pixels, in a process for each device; what the journal has is not done again.

    Raises RunError where a process was lost.
    """
    context = get_context("spawn")
    free: Queue[str] = context.Queue()
    for device in devices:
        free.put(device)
    waiting: deque[tuple[list[Source], bytes | Future[bytes]]] = deque()
    pool = ProcessPoolExecutor(len(devices), context, _start, (job, free, max(1, cores() // len(devices))))
    try:
        for number, part in enumerate(batches(sources, shard_images(job.settings.batch_size))):
            content = None if job.journal is None else job.journal.read(number, part)
            waiting.append((part, content or pool.submit(_work, number, part)))
            # Each process has one that it works on, and finds the next one ready.
            while len(waiting) > 2 * len(devices):
                yield from _result(*waiting.popleft())
        while waiting:
            yield from _result(*waiting.popleft())
    except BrokenProcessPool as error:
        raise RunError(
            "a process ended before it was done: it was killed, the memory was short, or the script that calls this "
            'does not do so below `if __name__ == "__main__":`, which it has to where devices= is given'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _result(part: list[Source], content: bytes | Future[bytes]) -> list[Looked]:
    return unpacked(content.result() if isinstance(content, Future) else content, part)


_running: tuple[Job, Trained] | None = None
"""Of a process: its job, and the detector on its device."""


def _start(job: Job, free: Queue[str], threads: int) -> None:
    global _running
    # Ctrl+C reaches every process of a terminal; the first one decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    trained = load(job.what)
    trained.model.to(single_device(free.get()).device)
    _running = job, replace(trained, model=ready(trained.model))


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _work(number: int, part: list[Source]) -> bytes:
    assert _running is not None
    job, trained = _running
    return job.look(trained, part, number)
