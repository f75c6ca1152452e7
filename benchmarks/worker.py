"""One side in a process of its own, so that its memory, threads and packages are nobody else's."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from job import Array, Job, Options, Prepared, Side
from sides import SIDES

LIMIT = 8 << 30  # bytes of data that a side's process may allocate; beyond, it fails instead of the machine
WARM, LONG = 3, 0.5  # answers before the one that is timed, at most; seconds from which none is needed
TRIAL_ROWS = 10  # at least so many rows are timed to choose among options
TRIAL_POINTS = 16  # likewise, where there are several
TOO_SLOW = 180.0  # seconds of one answer, expected from a trial, beyond which a side is left out


class SideError(Exception):
    """Why a side has no answer."""


class Worker:
    """A process that serves one side; closed by `with`."""

    def __init__(self, name: str, job: Job) -> None:
        """Start the process.

        Raises:
            SideError: the side is not installed, or does not serve the case.
        """
        here, there = multiprocessing.get_context("spawn").Pipe()
        self._pipe = here
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(there, name, job), daemon=True
        )
        self._process.start()
        there.close()
        try:
            self.versions: dict[str, str] = self._receive()
        except SideError:
            self.close()
            raise

    def candidates(self, x: Array) -> list[dict[str, Any]]:
        """Options with the seconds for each row, the fastest first."""
        return list(self._call("tune", x))

    def prepare(self, options: Options) -> float:
        """Read the model; seconds."""
        return float(self._call("prepare", options))

    def ask(self, x: Array, keep: Path | None = None) -> tuple[float, float | None]:
        """Seconds of one answer, and with its verification; W is saved where `keep` says."""
        seconds, verified = self._call("ask", (x, keep))
        return seconds, verified

    def facts(self, x: Array) -> dict[str, Any]:
        """What the side tells of its plan."""
        return dict(self._call("facts", x))

    def memory(self) -> tuple[int, int]:
        """Bytes resident at most, and after the imports."""
        peak, base = self._call("memory", None)
        return peak, base

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._pipe.close()  # the child reads the end of the pipe and leaves
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def _call(self, command: str, given: Any) -> Any:
        self._pipe.send((command, given))
        return self._receive()

    def _receive(self) -> Any:
        try:
            status, value = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(5)
            raise SideError(f"its process ended with code {self._process.exitcode}") from error
        if status == "failed":
            raise SideError(value)
        return value


# -- in the process ------------------------------------------------------------------------------------------


def _serve(pipe: Connection, name: str, job: Job) -> None:
    _limit_memory()
    for package in SIDES[name].hidden:
        sys.modules[package] = None  # type: ignore[assignment] # so that importing it fails
    try:
        side: Side = importlib.import_module(SIDES[name].module)
        versions = side.versions()
    except ImportError as error:
        pipe.send(("failed", f"not installed ({error}): {SIDES[name].install}"))
        return
    if name == "ilin[fast]" and "numba" not in versions:
        pipe.send(("failed", f"numba is not installed: {SIDES[name].install}"))
        return
    if reason := side.serves(job.case):
        pipe.send(("failed", reason))
        return
    base = _peak()
    pipe.send(("done", versions))
    prepared = None
    while True:
        try:
            command, given = pipe.recv()
        except EOFError:
            return
        try:
            if command == "tune":
                value: Any = _tune(side, job, given)
            elif command == "prepare":
                prepared, value = _prepare(side, job, given)
            elif command == "ask":
                assert prepared is not None
                x, keep = given
                value = _ask(prepared, x, keep)
            elif command == "facts":
                assert prepared is not None
                value = prepared.facts(given)
            else:
                value = (_peak(), base)
        except Exception as error:  # whatever a side raises is its result
            pipe.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))
        else:
            pipe.send(("done", value))


def _ask(prepared: Prepared, x: Array, keep: Path | None) -> tuple[float, float | None]:
    """Seconds of an answer at x, and of a verified one. Short ones are asked for at another point first.

    So that caches are this side's own, and its threads awake: what a program meets that asks again and again.
    """
    other = np.ascontiguousarray(x.reshape(-1)[::-1].reshape(x.shape))
    for _ in range(WARM):
        if keep is not None or prepared.ask(other).seconds > LONG:
            break
    answer = prepared.ask(x)
    if keep is not None:
        np.save(keep, answer.W)
    seconds = answer.seconds
    del answer
    return seconds, prepared.verified(x) if prepared.verified else None


def _prepare(side: Side, job: Job, options: Options) -> tuple[Any, float]:
    import time

    start = time.perf_counter()
    prepared = side.prepare(job, options)
    return prepared, time.perf_counter() - start


def _tune(side: Side, job: Job, x: Array) -> list[dict[str, Any]]:
    """Time each candidate on a part of the rows; the fastest first."""
    candidates = side.candidates(job)
    if not candidates:
        raise MemoryError("no way to run it is expected to fit in memory")
    if len(candidates) == 1:
        return [{"options": candidates[0], "seconds": None}]
    found: list[dict[str, Any]] = []
    best = float("inf")
    for options in candidates:
        in_flight = options.get("chunk") or options.get("seeds") or job.K
        rows = min(job.K, max(TRIAL_ROWS, in_flight))
        if found and not job.case.points and rows * best > 30:
            continue  # as many rows at once would take too long to try, for what little they could win
        points = min(job.case.points, max(TRIAL_POINTS, options.get("points") or job.case.points))
        trial = replace(job, case=replace(job.case, points=points), trial=rows)
        z = x[:points] if points else x
        try:
            ask = side.prepare(trial, options).ask
            seconds = ask(z).seconds
            if seconds < 1:
                seconds = min(ask(z).seconds, ask(z).seconds)
        except Exception:  # a way that fails, for want of memory say, is no candidate
            continue
        seconds *= (job.K / rows) * (job.case.points / points if points else 1)
        found.append({"options": options, "seconds": seconds})
        best = min(best, seconds / job.K)
    if not found:
        raise MemoryError("none of its options ran")
    found.sort(key=lambda each: each["seconds"])
    if found[0]["seconds"] > TOO_SLOW:
        raise TimeoutError(f"one answer would take about {found[0]['seconds']:.0f} s, and was not waited for")
    return found


def _peak() -> int:
    """Bytes that were resident at most in this process.

    Linux's VmHWM first: ru_maxrss there starts from the size of the process that started this one.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def _limit_memory() -> None:
    import resource

    with suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, hard))
