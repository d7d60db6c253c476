"""Fixtures of the dataset tests."""

from pathlib import Path

import pytest
from coco_files import tiny_coco, write_coco


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Parsed annotations go to a folder of the test, not to the user's."""
    monkeypatch.setenv("SDK_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def coco_folder(tmp_path) -> Path:
    write_coco(tmp_path / "coco", tiny_coco())
    return tmp_path / "coco"
