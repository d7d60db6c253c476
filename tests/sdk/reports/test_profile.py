"""Where the time of a step goes."""

import json
import re

import cv2
import numpy as np

import sdk
from sdk import cli
from sdk.reports.profile import MEASURED, SKIPPED, WARM_UP


def shares(text: str) -> dict[str, int]:
    """Percent of every part in the table."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.endswith("%")]
    return {cells[0]: int(cells[-1].rstrip("%")) for cells in rows}


def test_fit_writes_a_table_and_a_trace(tmp_path, shapes, tiny, capsys):
    sdk.fit(shapes, tiny(), out=tmp_path / "run", workers=0, epochs=4, profile=True)
    told = (tmp_path / "run" / "profile" / "profile.txt").read_text()
    found = shares(told)
    expected = {"data", "to device", "forward", "losses", "backward", "gradient", "optimizer", "figures"}
    assert found.keys() == {*expected, "everything else"}
    assert abs(sum(found.values()) - 100) <= len(found)
    assert min(found.values()) >= 0
    assert told.startswith(f"{MEASURED} steps of ")
    assert "synchronizations a step: " in told
    assert "profile.txt" not in capsys.readouterr().out
    events = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())["traceEvents"]
    assert sum(event.get("name") == "backward" for event in events) == MEASURED


def test_predict_writes_them_too(tmp_path, tiny):
    (tmp_path / "images").mkdir()
    for number in range(SKIPPED + WARM_UP + MEASURED):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), np.full((40, 40, 3), 9 * number, np.uint8))
    sdk.predict(tmp_path / "images", tiny(), profile=tmp_path / "profile")
    found = shares((tmp_path / "profile" / "profile.txt").read_text())
    assert found.keys() == {"data", "network", "everything else"}
    assert found["network"] > found["data"]


def test_too_few_steps_are_said(tmp_path, tiny, capsys):
    sdk.predict(np.zeros((40, 40, 3), np.uint8), tiny(), profile=tmp_path / "profile")
    assert "nothing was profiled" in capsys.readouterr().err
    assert not (tmp_path / "profile").exists()


def test_the_command_line_knows_it():
    assert cli.parser().parse_args(["fit", "shapes", "fcos_tiny", "--profile"]).profile is True
    assert cli.parser().parse_args(["predict", "a.jpg", "--model", "m", "--profile", "here"]).profile == "here"
