"""A map too large for memory, written to a folder in blocks of rows; a run that stopped can go on.

The folder holds the members of a saved map as files (docs/file-format.md): W.npy, b.npy, bias_shares.npy,
bounds.npy, rows.npy, x0.npy, y0.npy, …; progress.json says what is being written and how many rows are
finished, and header.json stands there once all of them are. A block counts as finished only after its bytes
have reached the disk, so that a run may be killed at any time.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .archive import header_of
from .arrays import Array, Shape
from .errors import OutputError
from .memory import readable

# From some of a plan's rows (k,) to a block (k, …) for each of its files, and any numbers of which the
# largest over all blocks is kept, such as deviations.
RowsOf = Callable[[Array], tuple[Mapping[str, Array], Array]]
Progress = Callable[[int, int], None]  # (rows finished, of)

_PROGRESS, _HEADER = "progress.json", "header.json"


@dataclass(frozen=True)
class Entry:
    """What one of a folder's files holds for each row."""

    shape: Shape
    dtype: np.dtype[Any]
    rows_last: bool = False  # whether the rows are the array's last axis instead of its first

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """What a folder is to hold: arrays of K rows each."""

    identity: Mapping[str, Any]  # everything that decides the answer, by name, as JSON has it
    rows: Array  # (K,) what the rows are made from, such as flat output indices
    entries: Mapping[str, Entry]  # by the file's name
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the run that began it, for later ones

    @property
    def row_bytes(self) -> int:
        """Bytes on disk for one row."""
        return sum(entry.bytes for entry in self.entries.values())


def entries_of_map(N: int, layers: int, dtype: np.dtype[Any]) -> dict[str, Entry]:
    """The files of a map, but for those that do not grow with K: W, b, and the layers' shares in b."""
    return {"W": Entry((N,), dtype), "b": Entry((), dtype), "bias_shares": doubles(layers)}


def doubles(count: int) -> Entry:
    """So many numbers for each row, each kind of them together: (count, K) in the end."""
    return Entry((count,), np.dtype(np.float64), rows_last=True)


@dataclass(frozen=True)
class Written:
    """How far a folder is."""

    rows_done: int = 0
    nonzero: int = 0  # entries of W.npy
    worst: tuple[float, ...] = ()  # the largest of the numbers that came with the blocks


def write_rows(
    folder: Path, plan: Plan, rows_of: RowsOf, *, block: int, progress: Progress | None = None
) -> Written:
    """Write the rows that are missing.

    Args:
        folder: is made where it does not exist; else it is empty, or holds a part of the same plan.
        plan: what to write.
        rows_of: computes a block.
        block: rows at once.
        progress: called with the rows finished and their number.

    Raises:
        OutputError: the folder holds something else, is in use, cannot be written, or is too small.
        KeyboardInterrupt: with a message that says how many rows are finished.
    """
    K = len(plan.rows)
    with _errors_named(folder), _alone(folder):
        done = _found(folder, plan)
        _check_space(folder, (K - (done.rows_done if done else 0)) * plan.row_bytes)
        files = {name: _File(folder / f"{name}.npy", K, entry) for name, entry in plan.entries.items()}
        if done is None:
            done = Written()
            _mark(folder, plan, done)  # before any other file: what stopped while making them can go on
        if not done.rows_done:
            for file in files.values():
                file.create()
        try:
            for first in range(done.rows_done, K, block):
                blocks, numbers = rows_of(plan.rows[first : first + block])
                for name, file in files.items():
                    file.put(first, blocks[name])
                following = _added(done, blocks["W"], numbers)
                _mark(folder, plan, following)
                done = following  # once that is on record: an interruption tells of no more than there is
                if progress:
                    progress(done.rows_done, K)
        except KeyboardInterrupt as stop:
            if stop.args:  # by rows that these are made of, in a folder of their own
                raise
            raise KeyboardInterrupt(
                f"interrupted; {done.rows_done:,} of {K:,} rows are finished in {folder}, and the same "
                "command goes on from there"
            ) from None
    return done


def finish(
    folder: Path, header: Mapping[str, Any], arrays: Mapping[str, Array], needless: Sequence[str] = ()
) -> None:
    """Write what is left of the map once all its rows are there.

    Args:
        folder: that `write_rows` wrote.
        header: of the map, as JSON has it.
        arrays: the other members of a saved map, by name: rows, x0, y0, …
        needless: folders inside it that the rows were made of, to be removed.

    Raises:
        OutputError: the folder cannot be written.
    """
    with _errors_named(folder):
        for name, value in arrays.items():
            np.save(folder / f"{name}.npy", value, allow_pickle=False)
        _write_json(folder / _HEADER, header)
        for name in needless:
            if (folder / name).exists():
                shutil.rmtree(folder / name)


def settings_of(folder: Path) -> dict[str, Any]:
    """Settings of the run that began a folder; none where there is no such folder.

    Raises:
        OutputError: what the folder tells of its progress is damaged.
    """
    return _read_progress(folder).settings if (folder / _PROGRESS).exists() else {}


def opened(folder: Path) -> tuple[Array, Array, Array]:
    """W (K, N), b (K,) and the shares (layers, K) of a folder whose rows are all written.

    W and the shares stay on disk: read-only memory maps.
    """
    b: Array = np.load(folder / "b.npy", allow_pickle=False)
    return mapped(folder / "W.npy"), b, mapped(folder / "bias_shares.npy")


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a finished folder; W and the shares stay on disk.

    Raises:
        OutputError: the folder holds no map, or one that is not finished.
    """
    if not (folder / _HEADER).exists():
        if not (folder / _PROGRESS).exists():
            raise OutputError(f"{folder} is a folder without a map saved by ilin")
        begun = _read_progress(folder)
        raise OutputError(f"{folder} holds {begun}; the command that wrote them goes on from there")
    header = header_of((folder / _HEADER).read_text(encoding="utf-8"), folder)
    names = ["rows", *(f"x{i}" for i in range(len(header["inputs"])))]
    names += [f"y{i}" for i in range(len(header["outputs"]))]
    if header["format"] > 1:
        names += [f"z{i}" for i in range(len(header["inputs"]))]
        names += [f"held{i}" for i in range(len(header["held"]))]
    if "inside" in header:
        names += [f"inside{i}" for i in range(len(header["inputs"]))]
    arrays: dict[str, Array] = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in names}
    arrays["W"], arrays["b"], arrays["bias_shares"] = opened(folder)
    if header["format"] > 1:
        arrays["bounds"] = mapped(folder / "bounds.npy")
    if "inside" in header:
        arrays["inside_bounds"] = mapped(folder / "inside_bounds.npy")
    return header, arrays


# -- files -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A .npy file of K rows, filled in place block by block along K, its slowest axis in memory."""

    path: Path
    K: int
    entry: Entry

    def create(self) -> None:
        """Write the header, and let the rest be a hole."""
        entry = self.entry
        described = {
            "descr": np.lib.format.dtype_to_descr(entry.dtype),
            "fortran_order": entry.rows_last,
            "shape": (*entry.shape[::-1], self.K) if entry.rows_last else (self.K, *entry.shape),
        }
        with self.path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, described)
            file.truncate(file.tell() + self.K * entry.bytes)

    def put(self, first: int, block: Array) -> None:
        """Write a block, (k, …) for the rows from `first` on, through to the disk.

        By plain writes and not through a memory map: where the disk is full, these raise an error.
        """
        content = np.ascontiguousarray(block, self.entry.dtype)
        start = self.path.stat().st_size - self.K * self.entry.bytes
        with self.path.open("r+b") as file:
            file.seek(start + first * self.entry.bytes)
            file.write(content.data)
            file.flush()
            os.fsync(file.fileno())


def mapped(path: Path) -> Array:
    """An array that stays on disk; an empty one cannot be mapped."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, *_ = np.lib.format.read_array_header_1_0(file)
    array: Array = np.load(path, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)
    return array


# -- progress ----------------------------------------------------------------------------------------


def _found(folder: Path, plan: Plan) -> Written | None:
    """How far the folder is with this plan; None where it is empty."""
    if not (folder / _PROGRESS).exists():
        if any(folder.iterdir()):
            raise OutputError(
                f"{folder} is not empty, and holds no map that was begun; choose another folder, or empty it"
            )
        return None
    begun = _read_progress(folder)
    theirs, ours = begun.identity, json.loads(json.dumps(dict(plan.identity)))
    different = [
        f"{name} is {_told(theirs.get(name))} there and {_told(ours.get(name))} here"
        for name in {**ours, **theirs}
        if theirs.get(name) != ours.get(name)
    ]
    if different:
        raise OutputError(
            f"{folder} holds {begun} of another map: {'; '.join(different)}; choose another folder, or "
            "delete this one to start over"
        )
    return begun.done


def _told(value: Any) -> str:
    """A setting in a message; hashes by their first digits."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{40,}", text) else text


def _added(done: Written, W: Array, numbers: Array) -> Written:
    worst = numbers if not done.worst else np.maximum(done.worst, numbers)  # NaN stays NaN
    return Written(done.rows_done + len(W), done.nonzero + int(np.count_nonzero(W)), tuple(map(float, worst)))


def _mark(folder: Path, plan: Plan, done: Written) -> None:
    told = {"identity": dict(plan.identity), "settings": dict(plan.settings), "rows": len(plan.rows)}
    _write_json(folder / _PROGRESS, {**told, **asdict(done)})


@dataclass(frozen=True)
class _Begun:
    """What a folder tells of itself."""

    identity: Mapping[str, Any]
    settings: dict[str, Any]
    done: Written
    K: int

    def __str__(self) -> str:
        return f"{self.done.rows_done:,} of {self.K:,} rows"


def _read_progress(folder: Path) -> _Begun:
    try:
        told = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        done = Written(int(told["rows_done"]), int(told["nonzero"]), tuple(told["worst"]))
        return _Begun(dict(told["identity"]), dict(told["settings"]), done, int(told["rows"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{folder / _PROGRESS} is damaged: {error}; delete {folder} to start over"
        ) from error


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a file whole, and durably."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


# -- around ------------------------------------------------------------------------------------------


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"the rows need {readable(needed)} on disk, but {folder} has {readable(free)} free; ask for "
            "fewer rows, or choose a folder on a larger disk"
        )


@contextmanager
def _errors_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it against a second run; the system lets go of it when a process ends."""
    folder.mkdir(exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once are up to the user
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OutputError(f"another run is writing to {folder}") from None
    finally:
        os.close(handle)
