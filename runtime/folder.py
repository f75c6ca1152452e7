"""A map too large for memory, written to a folder in blocks of rows; a run that stopped can go on.

The folder holds the members of a saved map as files (docs/file-format.md): W.npy, b.npy, bias_shares.npy,
rows.npy, x0.npy, y0.npy, …; progress.json says what is being written and how many rows are finished, and
header.json stands there once all of them are. A block counts as finished only after its bytes have reached
the disk, so that a run may be killed at any time.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array, Shape
from .errors import OutputError
from .memory import readable

# From flat output indices (k,) to W's rows (k, N), the shares in b (layers, k), and any numbers of which
# the largest over all blocks is kept, such as deviations.
RowsOfW = Callable[[Array], tuple[Array, Array, Array]]
Progress = Callable[[int, int], None]  # (rows finished, of)

_PROGRESS, _HEADER = "progress.json", "header.json"


@dataclass(frozen=True)
class Plan:
    """What a folder is to hold."""

    identity: Mapping[str, Any]  # everything that decides the answer, by name, as JSON has it
    rows: Array  # (K,) flat output indices
    N: int
    layers: int
    dtype: np.dtype[Any]  # of W and b

    @property
    def row_bytes(self) -> int:
        """Bytes on disk for one row."""
        return (self.N + 1) * self.dtype.itemsize + 8 * self.layers


@dataclass(frozen=True)
class Written:
    """How far a folder is."""

    rows_done: int = 0
    nonzero: int = 0  # entries of W
    worst: tuple[float, ...] = ()  # the largest of the numbers that came with the blocks


def write_rows(
    folder: Path, plan: Plan, rows_of_w: RowsOfW, *, block: int, progress: Progress | None = None
) -> Written:
    """Write the rows that are missing.

    Args:
        folder: is made where it does not exist; else it is empty, or holds a part of the same plan.
        plan: what to write.
        rows_of_w: computes a block.
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
        files = _files(folder, plan)
        if done is None:
            done = Written()
            _mark(folder, plan, done)  # before any other file: what stopped while making them can go on
        if not done.rows_done:
            for file in files.values():
                file.create()
        try:
            for first in range(done.rows_done, K, block):
                W, shares, numbers = rows_of_w(plan.rows[first : first + block])
                files["W"].put(first, W)
                files["b"].put(first, shares.sum(axis=0).astype(plan.dtype))
                files["bias_shares"].put(first, shares.T)
                done = _added(done, W, numbers)
                _mark(folder, plan, done)
                if progress:
                    progress(done.rows_done, K)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; {done.rows_done:,} of {K:,} rows are finished in {folder}, and the same "
                "command goes on from there"
            ) from None
    return done


def finish(folder: Path, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write what is left of the map once all its rows are there.

    Args:
        folder: that `write_rows` wrote.
        header: of the map, as JSON has it.
        arrays: the other members of a saved map, by name: rows, x0, y0, …

    Raises:
        OutputError: the folder cannot be written.
    """
    with _errors_named(folder):
        for name, value in arrays.items():
            np.save(folder / f"{name}.npy", value, allow_pickle=False)
        _write_json(folder / _HEADER, header)


def opened(folder: Path) -> tuple[Array, Array, Array]:
    """W (K, N), b (K,) and the shares (layers, K) of a folder whose rows are all written.

    W and the shares stay on disk: read-only memory maps.
    """
    b: Array = np.load(folder / "b.npy", allow_pickle=False)
    return _mapped(folder / "W.npy"), b, _mapped(folder / "bias_shares.npy")


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a finished folder; W and the shares stay on disk.

    Raises:
        OutputError: the folder holds no map, or one that is not finished.
    """
    if not (folder / _HEADER).exists():
        if not (folder / _PROGRESS).exists():
            raise OutputError(f"{folder} is a folder without a map saved by ilin")
        _, done, K = _read_progress(folder)
        raise OutputError(
            f"{folder} holds {done.rows_done:,} of {K:,} rows; the command that wrote them goes on from there"
        )
    header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
    names = ["rows", *(f"x{i}" for i in range(len(header["inputs"])))]
    names += [f"y{i}" for i in range(len(header["outputs"]))]
    arrays: dict[str, Array] = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in names}
    arrays["W"], arrays["b"], arrays["bias_shares"] = opened(folder)
    return header, arrays


# -- files -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A .npy file of known shape, filled in place block by block along K, its slowest axis in memory."""

    path: Path
    shape: Shape
    dtype: np.dtype[Any]
    by_columns: bool = False  # Fortran order: K is the last axis

    def create(self) -> None:
        """Write the header, and let the rest be a hole."""
        described = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": self.by_columns,
            "shape": self.shape,
        }
        with self.path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, described)
            file.truncate(file.tell() + math.prod(self.shape) * self.dtype.itemsize)

    def put(self, first: int, block: Array) -> None:
        """Write a block, (k, …) for the rows from `first` on, through to the disk.

        By plain writes and not through a memory map: where the disk is full, these raise an error.
        """
        content = np.ascontiguousarray(block, self.dtype)
        start = self.path.stat().st_size - math.prod(self.shape) * self.dtype.itemsize
        with self.path.open("r+b") as file:
            file.seek(start + first * math.prod(content.shape[1:]) * self.dtype.itemsize)
            file.write(content.data)
            file.flush()
            os.fsync(file.fileno())


def _files(folder: Path, plan: Plan) -> dict[str, _File]:
    K = len(plan.rows)
    return {
        "W": _File(folder / "W.npy", (K, plan.N), plan.dtype),
        "b": _File(folder / "b.npy", (K,), plan.dtype),
        "bias_shares": _File(
            folder / "bias_shares.npy", (plan.layers, K), np.dtype(np.float64), by_columns=True
        ),
    }


def _mapped(path: Path) -> Array:
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
    theirs, done, K = _read_progress(folder)
    ours = json.loads(json.dumps(dict(plan.identity)))
    different = [
        f"{name} is {_told(theirs.get(name))} there and {_told(ours.get(name))} here"
        for name in {**ours, **theirs}
        if theirs.get(name) != ours.get(name)
    ]
    if different:
        raise OutputError(
            f"{folder} holds {done.rows_done:,} of {K:,} rows of another map: {'; '.join(different)}; choose "
            "another folder, or delete this one to start over"
        )
    return done


def _told(value: Any) -> str:
    """A setting in a message; hashes by their first digits."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if len(text) > 40 else text


def _added(done: Written, W: Array, numbers: Array) -> Written:
    worst = numbers if not done.worst else np.maximum(done.worst, numbers)  # NaN stays NaN
    return Written(done.rows_done + len(W), done.nonzero + int(np.count_nonzero(W)), tuple(map(float, worst)))


def _mark(folder: Path, plan: Plan, done: Written) -> None:
    _write_json(folder / _PROGRESS, {"identity": dict(plan.identity), "rows": len(plan.rows), **asdict(done)})


def _read_progress(folder: Path) -> tuple[dict[str, Any], Written, int]:
    try:
        told = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        done = Written(int(told["rows_done"]), int(told["nonzero"]), tuple(told["worst"]))
        return dict(told["identity"]), done, int(told["rows"])
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
