"""Every topic runs on small inputs, and the page is made from what it writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> str:
    command = [sys.executable, "-W", "ignore", "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "topic",
    [
        "transforms",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("ops", "loading", "inference", "export", "training")),
    ],
)
def test_a_topic_writes_figures_and_the_page_shows_them(topic, tmp_path):
    run(f"benchmarks.{topic}", "--quick", "--out", tmp_path / f"{topic}.json")
    found = json.loads((tmp_path / f"{topic}.json").read_text())
    assert found["rows"]
    for row in found["rows"]:
        assert row["ours"]["lowest_s"] <= row["ours"]["median_s"] <= row["ours"]["highest_s"]
        for peer in row["peers"].values():
            assert peer["times_faster"] == pytest.approx(peer["median_s"] / row["ours"]["median_s"])
    run("benchmarks.page", tmp_path, "--to", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert f"## {topic.capitalize()}" in page
    assert "Small inputs and one turn: these figures say nothing." in page
    assert all(row["name"] in page for row in found["rows"])


def test_a_topic_that_is_not_there_is_refused():
    command = [sys.executable, "-m", "benchmarks", "nothing"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 2
    assert "nothing: expected some of ops, transforms" in said.stderr
