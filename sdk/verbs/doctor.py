"""What is installed, what it runs on, and what does not work."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib.util import find_spec

from ..results.manifest import PACKAGES, versions


def doctor(database: bool = True) -> dict[str, str]:
    """Prints versions, devices, the implementation of the ops, and whether the FiftyOne database starts.

    Args:
        database: start the database; without it only the rest is looked at.

    Returns:
        Every line by its name.
    """
    import torch

    from ..ops.backend import describe

    told = versions()
    for name in PACKAGES:
        told.setdefault(name, "not installed")
    told["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    told["cuda"] = _cuda(torch)
    for device, implementation in describe().items():
        told[f"ops on {device}"] = implementation
    if database:
        told["fiftyone database"] = fiftyone_database()
    width = max(map(len, told))
    for name, value in told.items():
        print(f"{name:<{width}}  {value}", file=sys.stdout)
    return told


def _cuda(torch) -> str:
    if not torch.cuda.is_available():
        return "none" if torch.version.cuda is None else f"none found (torch is built for CUDA {torch.version.cuda})"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"CUDA {torch.version.cuda}: {', '.join(names)}"


def fiftyone_database() -> str:
    """Whether FiftyOne can reach its database, in words."""
    if find_spec("fiftyone") is None:
        return "FiftyOne is not installed: pip install 'detection-sdk[fiftyone]'"
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    if "FIFTYONE_DATABASE_URI" not in os.environ and "FIFTYONE_DATABASE_DIR" not in os.environ:
        # A database of its own, so that looking changes nothing of the user's.
        with tempfile.TemporaryDirectory() as folder:
            os.environ["FIFTYONE_DATABASE_DIR"] = folder
            try:
                return _reach_database()
            finally:
                del os.environ["FIFTYONE_DATABASE_DIR"]
    return _reach_database()


def _reach_database() -> str:
    import subprocess

    # In a process of its own: a database that cannot start must not end or hang this one.
    code = "import fiftyone as fo; print(len(fo.list_datasets()))"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "does not answer within two minutes; FIFTYONE_DATABASE_URI can name a MongoDB server that runs already"
    if done.returncode == 0:
        return "starts"
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"does not start: {last}; FIFTYONE_DATABASE_URI can name a MongoDB server that runs already"
