"""How far a long job is: a bar on terminals, lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import select

import pytest

from sdk.reports import progress as module
from sdk.reports.progress import Progress, say


@pytest.fixture(autouse=True)
def fresh_console():
    module.console.cache_clear()
    yield
    module.console.cache_clear()


def test_a_bar_on_a_terminal(monkeypatch):
    there, here = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(here, "w", closefd=True) as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with Progress(total=4, per_step=2) as progress:
            progress.show(2, "epoch 1/1", {"loss": 1.25})
            say("a line above")
            # A bar within a bar, as of the scoring after an epoch.
            with Progress(total=3) as inner:
                inner.show(3, "scoring [val]")
            progress.show(4, "epoch 1/1", {"loss": 0.5})
        written = b""
        while select.select([there], [], [], 0.5)[0]:
            written += os.read(there, 100_000)
    os.close(there)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    assert "epoch 1/1" in shown
    assert "4/4" in shown
    assert "loss 0.5" in shown
    assert "scoring [val]" in shown
    assert "a line above\r\n" in shown


def test_lines_elsewhere(capsys):
    with Progress(total=4, per_step=2, every=0.0) as progress:
        for step in range(1, 5):
            progress.show(step, "epoch 1/1", {"loss": 1 / step})
        say("done")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines[:-1]] == ["1/4", "2/4", "3/4", "4/4"]
    assert lines[-1] == "done"
    assert re.fullmatch(r"epoch 1/1  4/4  [\d.]+ images/s  0:00 left  loss 0\.25", lines[3])


def test_the_last_step_is_always_told(capsys):
    with Progress(total=3, unit="files") as progress:
        for step in range(1, 4):
            progress.show(step, "reading")
    assert re.fullmatch(r"reading  3/3  [\d.]+ files/s  0:00 left\n", capsys.readouterr().err)


def test_nothing_is_shown_where_another_process_shows_it(capsys):
    with Progress(total=1, shown=False) as progress:
        progress.show(1, "epoch")
    assert capsys.readouterr().err == ""
