"""A FiftyOne with a database of its own, in a folder of the test run's."""

from __future__ import annotations

import os

import pytest

from sdk.datasets import Coco, Voc

pytest.importorskip("fiftyone", reason="FiftyOne is not installed")


@pytest.fixture(scope="session")
def fo(tmp_path_factory):
    """FiftyOne with a real database; nothing of the user's is read or written."""
    if not {"FIFTYONE_DATABASE_DIR", "FIFTYONE_DATABASE_URI"} & os.environ.keys():
        os.environ["FIFTYONE_DATABASE_DIR"] = str(tmp_path_factory.mktemp("database"))
    os.environ["FIFTYONE_SHOW_PROGRESS_BARS"] = "false"
    from sdk.fiftyone.starting import start

    fiftyone = start()
    before = set(fiftyone.list_datasets())
    yield fiftyone
    for name in set(fiftyone.list_datasets()) - before:
        fiftyone.delete_dataset(name)


@pytest.fixture(scope="session")
def coco(shared) -> Coco:
    root = shared / "data" / "coco_val2014_100"
    return Coco(annotations=root / "annotations" / "instances_val2014_100.json", images=root / "val2014")


@pytest.fixture(scope="session")
def bccd(shared) -> Voc:
    return Voc(shared / "data" / "bccd", split="test")
