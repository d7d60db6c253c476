"""What a run folder says of itself: its manifest and its metrics."""

from __future__ import annotations

import json
import platform
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


def versions() -> dict[str, str]:
    """Version of Python, of this package, and of every package that it uses and finds."""
    found = {"python": platform.python_version(), "sdk": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
