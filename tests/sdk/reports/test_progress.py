"""The line that says how far a long job is."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios

import pytest

from sdk.reports.progress import Progress


@pytest.mark.parametrize(("columns", "width"), [(40, 39), (0, 79)])
def test_a_line_on_a_terminal_is_written_over(monkeypatch, columns, width):
    there, here = pty.openpty()
    fcntl.ioctl(here, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(here, "w", closefd=True) as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        progress = Progress(total=4, images_per_step=2)
        progress.show(4, "epoch 1/1", {"loss": 1.25, "a_term_with_a_long_name": 0.5, "another_of_these": 0.125})
        progress.note("done")
        written = os.read(there, 10_000).decode()
    os.close(there)
    first, second = written.removeprefix("\r").split("\r")[:2]
    assert len(first) == width
    assert first.startswith("epoch 1/1  4/4  ")
    assert second == "done" + " " * (width - 4)


def test_lines_elsewhere(capsys):
    progress = Progress(total=4, images_per_step=2, every=0.0)
    for step in range(1, 5):
        progress.show(step, "epoch 1/1", {"loss": 1 / step})
    progress.note("done")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines[:-1]] == ["1/4", "2/4", "3/4", "4/4"]
    assert lines[-1] == "done"
    assert lines[3].endswith("0:00 left  loss 0.25")


def test_nothing_is_shown_where_another_process_shows_it(capsys):
    progress = Progress(total=1, images_per_step=1, shown=False)
    progress.show(1, "epoch", {})
    progress.note("done")
    assert capsys.readouterr().err == ""
