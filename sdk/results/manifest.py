"""What a run folder says of itself: its manifest and its metrics."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..version import __version__

MANIFEST = "manifest.json"

METRICS = "metrics.jsonl"

PACKAGES = (
    "torch",
    "torchvision",
    "lightning-fabric",
    "numpy",
    "opencv-python-headless",
    "pycocotools",
    "safetensors",
    "tensorboard",
    "fiftyone",
    "albumentations",
    "instaboostfast",
    "lvis",
    "cityscapesscripts",
)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder."""
    path = folder / MANIFEST
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder (there is no {MANIFEST} in it)")
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON: {error}") from error
    missing = [key for key in ("model", "classes", "category_ids", "options") if key not in manifest]
    if missing:
        raise RunError(f"{path}: misses {', '.join(missing)}")
    return manifest


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that was cut off is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Version of Python, of this package, and of each of some packages that is installed."""
    found = {"python": platform.python_version(), "sdk": __version__}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def surroundings() -> dict[str, Any]:
    """Where a run is made: versions of packages, commits of the user's and of this package's checkout, hardware."""
    return {"versions": versions(), "commits": commits(), "hardware": hardware()}


def commits() -> dict[str, str]:
    """The commit of the working folder's checkout and of the one that this package lies in, where they are checkouts.

    ``+changes`` behind it says that files differ from the commit.
    """
    folders = {"here": Path.cwd(), "sdk": Path(__file__).parent}
    found = {name: _commit(folder) for name, folder in folders.items()}
    return {name: commit for name, commit in found.items() if commit is not None}


def _commit(folder: Path) -> str | None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Machine, cores, memory in GB, and the names of the GPUs."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def differences(manifest: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What of a run's manifest is otherwise in another, or in ``surroundings``: one line a value, by its path.

    Only the parts that ``here`` has are compared. With the same values a run gives the same weights again; other
    versions and hardware may round otherwise.
    """
    found: list[str] = []
    for part in here:
        # Through JSON, so that tuples and lists compare equal.
        _compare(part, manifest.get(part), json.loads(json.dumps(here[part])), found)
    return found


def _compare(path: str, old: Any, new: Any, found: list[str]) -> None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            _compare(f"{path}.{name}", old.get(name), new.get(name), found)
    elif old != new:
        before, after = ("absent" if value is None else f"{value!r:.200}" for value in (old, new))
        found.append(f"{path}: was {before}, is {after}")
