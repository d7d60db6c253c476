"""What a manifest says of where a run was made, and how two differ."""

from __future__ import annotations

import json
import os
import subprocess

import sdk
from sdk.results.manifest import commits, differences, hardware, surroundings


def test_nothing_differs_on_the_same_machine():
    here = surroundings()
    assert here["versions"]["torch"]
    assert here["hardware"]["cores"] == os.cpu_count()
    assert differences(json.loads(json.dumps(here)), here) == []


def test_every_difference_is_named():
    old = {"versions": {"torch": "2.11.0", "gone": "1"}, "options": {"drops": [1, 2]}, "classes": ["a"], "more": 1}
    new = {"versions": {"torch": "2.12.0", "new": "3"}, "options": {"drops": (1, 2)}, "classes": ("a", "b")}
    assert differences(old, new) == [
        "versions.torch: was '2.11.0', is '2.12.0'",
        "versions.gone: was '1', is absent",
        "versions.new: was absent, is '3'",
        "classes: was ['a'], is ['a', 'b']",
    ]


def test_the_commit_of_the_users_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "here" not in commits()
    settings = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], [*settings, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *words], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert commits()["here"] == head
    (tmp_path / "file").write_text("1")
    subprocess.run(["git", "add", "file"], check=True)
    assert commits()["here"] == f"{head}+changes"


def test_a_run_says_where_it_was_made(tmp_path, shapes, tiny):
    run = sdk.fit(shapes, tiny(), out=tmp_path / "run", workers=0, epochs=1, deterministic=True)
    assert run.manifest["hardware"] == json.loads(json.dumps(hardware()))
    assert differences(run.manifest, surroundings()) == []
