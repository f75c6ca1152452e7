"""Text for people: lines to either stream, numbers, shapes and names that fit a terminal."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

import click

from ..runtime.text import NOT_FINITE as NOT_FINITE
from ..runtime.text import column as column
from ..runtime.text import number as number
from ..runtime.text import one_line as one_line
from ..runtime.text import shortened as shortened

MESSAGE_WIDTH = 80  # columns at most of a line for people


class StandardOutputError(Exception):
    """Standard output does not take what is written to it: its reader went away, or it is full."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror or str(cause))
        self.reader_gone = cause.errno == errno.EPIPE


def say(text: str) -> None:
    """Write a part of the result to standard output.

    Raises:
        StandardOutputError: it cannot be written.
    """
    try:
        click.echo(text, color=_colour())
    except OSError as error:
        raise StandardOutputError(error) from error


def note(text: str, stream: TextIO | None = None) -> None:
    """Write a line that is not the result to standard error, or to another stream."""
    told = _folded("note: ", one_line(text), stream or sys.stderr)
    click.echo(f"note: {told}", file=stream, err=stream is None, color=_colour())


def stderr_apart() -> TextIO:
    """Standard error by a descriptor of its own, which stays while C++ code is kept from writing to it."""
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except OSError:  # no file stands behind it, so nobody else can write to it either
        return sys.stderr
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="replace")


def error_line(text: str, *, after_echo: bool = False) -> None:
    """Write one line `error: …` to standard error.

    Args:
        text: what went wrong, where, and what to do next.
        after_echo: start on a fresh line where a terminal has just echoed ^C.
    """
    if after_echo and sys.stderr is not None and sys.stderr.isatty():
        click.echo(err=True)
    told = _folded("error: ", one_line(text), sys.stderr)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {told}", err=True, color=_colour())


def _folded(label: str, text: str, stream: TextIO | None) -> str:
    """Text for behind a label: on a terminal in lines that fit, elsewhere in one, for machines.

    Words that do not fit, such as paths, stay whole, so that they can be copied.
    """
    if stream is None or not stream.isatty():
        return text
    room = min(MESSAGE_WIDTH, shutil.get_terminal_size().columns) - len(label)
    lines = textwrap.wrap(text, max(20, room), break_long_words=False, break_on_hyphens=False)
    return f"\n{'':{len(label)}}".join(lines)


def colourful() -> bool:
    """Whether terminals may show colours (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _colour() -> bool | None:
    """False where the user wants no colour; None lets click look at the stream."""
    return None if colourful() else False


def dimensions(shape: Sequence[int | str | None] | None) -> str:
    """A shape as 1×3×?×?; a scalar's is empty, an open rank's is a question mark."""
    if shape is None:
        return "?"
    return "×".join("?" if d is None else one_line(str(d)) for d in shape) or "scalar"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """1 node, 2 nodes; `nouns` where an s is not all that several take."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def listed(parts: Sequence[str], most: int = 3) -> str:
    """The first few, and how many are left out."""
    rest = len(parts) - most
    return ", ".join(parts[:most]) + (f" and {rest} more" if rest > 0 else "")


def labelled(label: str, text: str, colour: str | None = None) -> str:
    """A line whose label stands in the margin."""
    return click.style(f"{label:<11}", bold=True, fg=colour) + text
