"""Names that come from models and files nobody here wrote, made fit to be shown."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text in one line, without control characters: they are spelt out, and what is blank is a space."""
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
