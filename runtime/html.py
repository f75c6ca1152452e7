"""What notebooks show of a value: a small table, escaped, without styles of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .text import one_line

_LEFT = ' style="text-align:left"'


def facts(title: str, rows: Mapping[str, object]) -> str:
    """A title, and a line for each fact.

    Args:
        title: what it is.
        rows: name to value; both are text from models that nobody here wrote.
    """
    lines = "".join(
        f'<tr><th scope="row"{_LEFT}>{_text(name)}</th><td{_LEFT}>{_text(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption{_LEFT}><b>{_text(title)}</b></caption><tbody>{lines}</tbody></table>"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A title, and rows under the names of columns; all but the first column are numbers."""
    heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
    lines = "".join(
        f'<tr><th scope="row"{_LEFT}>{_text(first)}</th>{"".join(f"<td>{_text(v)}</td>" for v in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f"<table><caption{_LEFT}><b>{_text(title)}</b></caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    )


def _text(value: object) -> str:
    return escape(one_line(str(value)))
