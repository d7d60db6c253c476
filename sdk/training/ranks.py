"""Processes that train together: how many there are, their share of the cores, and what happens when one is lost."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

import torch
from lightning_fabric import Fabric
from torch.distributed import distributed_c10d

from ..errors import RunError
from ..inference.running import cores
from ..reports.progress import say

SILENCE_S = 40.0
"""A process that is not heard of for so long is taken for lost."""
BEAT_S = 2.0
LOST_CONNECTION = ("onnection closed by peer", "onnection reset by peer", "roken pipe", "NCCL")
GO_ON = "resume='auto' goes on from the last state"


def launched_outside(devices: int | str | list[int], nodes: int) -> tuple[int | str | list[int], int]:
    """Devices and nodes as torchrun has started them, which alone decides; else as they were given."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return devices, nodes
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return local, world // local


def count_devices(devices: int | str | list[int]) -> int:
    """Processes that Fabric starts on each machine for ``devices``."""
    if isinstance(devices, list):
        return len(devices)
    if devices in ("auto", "-1", -1):
        return max(1, torch.cuda.device_count())
    return len(devices.split(",")) if isinstance(devices, str) and "," in devices else int(devices)


def ranks_here(fabric: Fabric) -> int:
    """Processes of this training on this machine."""
    return max(1, fabric.world_size // max(1, getattr(fabric.strategy, "num_nodes", 1)))


def share_cores(fabric: Fabric) -> None:
    """Gives each process of this machine its part of the cores, so that they do not starve each other.

    What OMP_NUM_THREADS says stays; torchrun sets it to 1 where nobody else has.
    """
    here = ranks_here(fabric)
    if here > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() // here))


class Watch:
    """Notices within a minute when one of several processes is lost, and ends the others with a clear message.

    Every process puts a sign of life into the store by which they found each other, and looks for those of the
    others. What one failed with is left there too, so that the others can say it. With one process nothing is done.
    """

    def __init__(self, fabric: Fabric, silence_s: float = SILENCE_S, end: Callable[[int], object] = os._exit) -> None:
        self.rank, self.world_size, self.silence_s, self.end = fabric.global_rank, fabric.world_size, silence_s, end
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        if self.world_size > 1:
            # A clone has its own connection: the store's would be held while the main thread waits for something.
            store, prefix = distributed_c10d._get_default_store(), f"sdk-watch-{next(_COUNT)}"
            self.store, self.messages = (distributed_c10d.PrefixStore(prefix, store.clone()) for _ in range(2))
            self.thread = threading.Thread(target=self._watch, name="lost-ranks", daemon=True)
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.thread is None:
            return
        self.stop.set()
        if error is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
            return
        if isinstance(error, RuntimeError):
            # Most likely a collective that broke off because another process is gone.
            told = self._failure_of_another()
            if told is None and any(word in str(error) for word in LOST_CONNECTION):
                told = f"the connection to another process was lost: it was killed, or its machine stopped; {GO_ON}"
            if told is not None:
                # At once: whoever started the processes may kill this one before the error gets through.
                say(f"process {self.rank}: {told}")
                raise RunError(told) from error
        try:
            self.messages.set("failed", f"{self.rank} {type(error).__name__}: {error}"[:2000])
        except RuntimeError:
            return  # The store is gone with the process that held it.

    def _failure_of_another(self) -> str | None:
        try:
            if not self.messages.check(["failed"]):
                return None
            rank, _, text = self.messages.get("failed").decode(errors="replace").partition(" ")
        except RuntimeError:
            return f"process 0 is gone, so this one ends too; {GO_ON}"
        if int(rank) == self.rank:
            return None
        return f"process {rank} failed, so this one ends too: {text}"

    def _watch(self) -> None:
        heard: dict[int, tuple[bytes, float]] = {}
        beat = 0
        while not self.stop.wait(BEAT_S):
            beat += 1
            try:
                self.store.set(f"alive/{self.rank}", str(beat))
                now = time.monotonic()
                for rank in range(self.world_size):
                    key = f"alive/{rank}"
                    sign = self.store.get(key) if self.store.check([key]) else b""
                    if rank not in heard or heard[rank][0] != sign:
                        heard[rank] = sign, now
                silent = [rank for rank, (_, when) in heard.items() if now - when > self.silence_s]
            except RuntimeError:
                silent = [0]
            if silent and not self.stop.is_set():
                told = self._failure_of_another() if silent != [0] else None
                lost = f"nothing was heard of process {silent[0]} for {self.silence_s:.0f} s"
                say(f"process {self.rank}: {told or lost}; ending. {GO_ON}")
                self.end(1)
                return


_COUNT = itertools.count()
