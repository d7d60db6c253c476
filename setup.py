"""The package list and the optional C++/CUDA extension; everything else stands in pyproject.toml."""

from pathlib import Path

from setuptools import setup

ROOMS = {
    "sdk": "sdk",
    "sdk.datasets": "datasets",
    "sdk.models": "models",
    "sdk.ops": "ops",
    "sdk.evaluators": "evaluators",
}


def packages() -> list[str]:
    """Every folder with Python files in a room, named as it is imported (``models/zoo`` -> ``sdk.models.zoo``)."""
    root = Path(__file__).parent
    found = set()
    for package, folder in ROOMS.items():
        for file in (root / folder).rglob("*.py"):
            inner = file.parent.relative_to(root / folder).parts
            found.add(".".join((package, *inner)))
    return sorted(found)


setup(packages=packages())
