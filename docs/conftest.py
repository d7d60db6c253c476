"""Runs the code blocks of the pages, in their order, in a folder that holds what they speak of.

The blocks of a page share their names, as a reader's session would. A block that cannot run everywhere is marked with
``<!-- skip: next "reason" -->`` above it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from docs_world import make_world
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from sdk.cli import main


@cache
def world() -> Path:
    """What pages speak of: data sets, images and trained runs; made once, and copied for every page."""
    return make_world(Path(tempfile.mkdtemp(prefix="docs_world_")))


def run_shell(example: Example) -> None:
    """Runs the lines of a shell block; all of them are verbs of ``sdk``."""
    lines = str(example.parsed).replace("\\\n", " ").splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] != "sdk":
            raise ValueError(f"{words[0]!r} is no verb of sdk: mark the block as one that is not run, with the reason")
        try:
            status = main(words[1:])
        except SystemExit as end:
            status = end.code
        if status:
            raise RuntimeError(f"{line!r} ended with status {status}")


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of the world for one page, where its blocks run."""
    before, copy = Path.cwd(), Path(tempfile.mkdtemp(prefix="docs_page_"))
    shutil.copytree(world(), copy, dirs_exist_ok=True)
    os.chdir(copy)
    yield copy
    os.chdir(before)
    shutil.rmtree(copy)


class ShellCodeBlockParser(CodeBlockParser):
    """Blocks of ``sh``."""

    language = "sh"

    def evaluate(self, example: Example) -> None:
        """Runs the lines of a block."""
        run_shell(example)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), ShellCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    excludes=["changelog.md", "contributing.md"],
    fixtures=["folder"],
).pytest()
