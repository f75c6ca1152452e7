"""Tables: drawn by rich on a terminal, plain columns of any width elsewhere; never truncated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..runtime.text import one_line
from ._text import colourful, say

_COLOURS = {
    "affine": "green",
    "piecewise-linear": "cyan",
    "locally constant": "blue",
    "constant": "dim",
    "smooth": "yellow",
    "unsupported": "bold red",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=list)


def show(table: Table) -> None:
    """Write a table to standard output."""
    if sys.stdout is not None and sys.stdout.isatty():
        _draw(table)
    else:
        say(plain(table))


def plain(table: Table) -> str:
    """Columns as wide as their content, two spaces apart."""
    cells = [[one_line(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _draw(table: Table) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in table.header:
        drawn.add_column(name, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(one_line(cell), style=_COLOURS.get(cell, "")) for cell in row))
    Console(color_system="auto" if colourful() else None).print(drawn)
