"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

# Dashes below the header, two spaces between columns; plain characters, so that any terminal and file can hold it.
_LINES = Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns lined up, however wide; the first row is the header."""
    made = Table(*(Column(Text(title)) for title in rows[0]), box=_LINES, show_edge=False, pad_edge=False)
    for row in rows[1:]:
        made.add_row(*map(Text, row))
    width = sum(max(cell_len(row[i]) for row in rows) + 3 for i in range(len(rows[0])))
    console = Console(width=width, color_system=None, file=StringIO())
    with console.capture() as captured:
        console.print(made)
    return [line.rstrip() for line in captured.get().splitlines()]
