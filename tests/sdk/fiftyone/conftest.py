"""A FiftyOne with a database of its own, in a folder that goes away."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest
from sdk.datasets import Coco, Voc

pytest.importorskip("fiftyone", reason="FiftyOne is not installed")


@pytest.fixture(scope="session")
def fo():
    """FiftyOne with a real database; nothing of the user's is read or written."""
    folder = tempfile.mkdtemp(prefix="fiftyone-")
    if not {"FIFTYONE_DATABASE_DIR", "FIFTYONE_DATABASE_URI"} & os.environ.keys():
        os.environ["FIFTYONE_DATABASE_DIR"] = folder
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


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.logical_or(a, b).sum()
    return 1.0 if union == 0 else float(np.logical_and(a, b).sum() / union)
