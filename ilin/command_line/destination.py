"""Where `-o` and `--out-dir` write: checked before anything is computed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ..runtime.errors import OutputError


def numbered(output: Path | None, count: int) -> list[Path | None]:
    """One path for each instance: OUT.npz or OUT alone, else OUT.0.npz, OUT.1.npz, …, padded with zeros."""
    if output is None or count == 1:
        return [output] * count
    width = len(str(count - 1))
    return [output.with_name(f"{output.stem}.{i:0{width}}{output.suffix}") for i in range(count)]


def check_destination(path: Path, *, sources: Sequence[Path]) -> None:
    """Make sure that a map could be written there, and that no input would be lost.

    Args:
        path: of the file to write.
        sources: files that are read.

    Raises:
        OutputError: why it cannot be written. Nothing was changed.
    """
    if str(path) == "-":
        raise OutputError("cannot write to standard output ('-'); name a file")
    for source in sources:
        if _same(path, source):
            raise OutputError(f"refusing to overwrite the input {source}; choose another name for the output")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: no such folder: {folder}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is not a regular file")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: the existing file is read-only")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}: {folder}") from error


def check_apart(paths: Mapping[str, Path | None]) -> None:
    """Make sure that no two results would go to one place.

    Args:
        paths: by option; None where it is not given.

    Raises:
        OutputError: it names the two options.
    """
    given = [(option, path) for option, path in paths.items() if path is not None]
    for (first, one), (second, other) in combinations(given, 2):
        if _same(one, other):
            raise OutputError(f"{first} and {second} both name {one}; choose another name for one of them")


def check_folder(path: Path) -> None:
    """Make sure that a folder is there or could be made; what it holds is judged when it is written.

    Raises:
        OutputError: why not. Nothing was changed.
    """
    if path.is_dir():
        return
    if path.exists():
        raise OutputError(f"cannot write to {path}: it is not a folder")
    parent = path.resolve().parent
    if not parent.is_dir():
        raise OutputError(f"cannot make {path}: no such folder: {parent}")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot make {path}: {parent} is read-only")


def _same(path: Path, source: Path) -> bool:
    """Whether both name one file, by any name."""
    try:
        return path.samefile(source)
    except OSError:  # one of them does not exist
        return path.resolve() == source.resolve()
