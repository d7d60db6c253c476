"""FiftyOne with and without its database, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def started(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom sdk.fiftyone.starting import start\nstart()"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    return done.stderr


def test_no_database_says_what_to_set():
    # Nothing listens on port 9.
    said = started("", FIFTYONE_DATABASE_URI="mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500")
    assert "sdk.errors.SdkError: FiftyOne keeps its datasets in MongoDB" in said
    for wanted in ("FIFTYONE_DATABASE_URI", "FIFTYONE_DATABASE_DIR", "save_bundle"):
        assert wanted in said


def test_no_fiftyone_says_what_to_install():
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'fiftyone':\n"
        "            raise ModuleNotFoundError('No module named fiftyone', name='fiftyone')\n"
        "sys.meta_path.insert(0, Absent())"
    )
    assert "pip install 'detection-sdk[fiftyone]'" in started(code)


@pytest.mark.fiftyone
def test_nothing_is_sent(fo):
    assert fo.config.do_not_track
    assert os.environ["FIFTYONE_DO_NOT_TRACK"] == "true"
