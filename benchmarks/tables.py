"""Tables that a benchmark writes into a page of the documentation, between two marks."""

from __future__ import annotations

from pathlib import Path


def replace_table(page: Path, marks: tuple[str, str], table: str) -> None:
    """Put a table in the place of the one that stands between the marks."""
    before, rest = page.read_text().split(marks[0])
    after = rest.split(marks[1])[1]
    page.write_text(f"{before}{marks[0]}\n{table}\n{marks[1]}{after}")
