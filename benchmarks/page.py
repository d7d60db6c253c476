"""The page of figures, made from what the topics wrote: ``python -m benchmarks.page [FOLDER] [--to FILE]``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measuring import HEADER, row_cells

PAGE = Path("docs/benchmarks.md")
INTRODUCTION = """# Benchmarks

This page is made by `python -m benchmarks.page` from the JSON files that `python -m benchmarks` writes; a topic runs
alone as `python -m benchmarks.TOPIC`. Both sides of a row ran in turns in one process on the same inputs: the median
time of one image or call, the fastest and the slowest turn, the least CPU time of all threads, and by how much the
process grew in the first call. A load far above zero before the start means that others used the machine.
"""


def page(results: Sequence[dict[str, Any]]) -> str:
    """The topics' figures as Markdown."""
    return "\n".join([INTRODUCTION, *(section(found) for found in results)])


def section(found: dict[str, Any]) -> str:
    """One topic: where it ran, then its table."""
    machine = found["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['system']}"
    if machine["gpu"]:
        where += f", {machine['gpu']}"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"## {found['topic'].capitalize()}", "", f"{where}; load before the start {found['load']['before']}."]
    lines += [f"{versions}.", ""]
    if found["quick"]:
        lines += ["Small inputs and one turn: these figures say nothing.", ""]
    lines += [markdown_row(HEADER), markdown_row(["---"] * len(HEADER))]
    lines += [markdown_row(cells) for row in found["rows"] for cells in row_cells(row)]
    lines += [f"\nLeft out: {name}, because {reason}." for name, reason in found["skipped"].items()]
    return "\n".join(lines) + "\n"


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--to", type=Path, default=PAGE)
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.json"))
    if not files:
        parser.error(f"{options.folder}: no figures here; `python -m benchmarks` writes them")
    options.to.write_text(page([json.loads(file.read_text()) for file in files]), encoding="utf-8")
    print(f"{options.to}: {len(files)} topics")


if __name__ == "__main__":
    main()
