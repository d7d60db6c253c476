"""Fixtures of the whole suite."""

from pathlib import Path

import pytest
from hypothesis import settings

# No time limit for one example: machines that run other things at once would fail by chance.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference cases and small real data beside the repository; skips where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"reference data is absent: no {path}")
    return path
