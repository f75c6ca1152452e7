"""One case: every side is tried at its best, checked against ilin's W, and timed round by round."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case
from job import Array, Job
from sides import OURS
from worker import SideError, Worker

# Largest |W - ilin's W| over max |W| that is float32 rounding, and perhaps a unit at the edge of it.
AGREES = 1e-3
# Seconds before each answer, for the threads of the side before to go to sleep: they spin for a while.
SETTLE = 0.1
# Seconds of an answer that is timed in one round only.
ONCE = 60.0

Log = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """How long to measure."""

    rounds: int = 7
    at_least: int = 2
    seconds: float = 15.0  # after which a side takes part in no more rounds


@dataclass
class Measured:
    """One side of one case."""

    side: str
    options: dict[str, Any]
    ready: float  # seconds to read the model and give the first answer
    deviation: float | None = None  # max |W - ilin's W| / max |W|; None for the side compared with
    seconds: list[float] = field(default_factory=list)
    verified: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    base_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def compare(case: Case, sides: Sequence[str], limits: Limits, engine: str, log: Log) -> dict[str, Any]:
    """Measure a case; plain data, for JSON."""
    log(f"\n{case.name}")
    skipped: dict[str, str] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        job, points, active, shifts = _job(case, Path(folder), engine)
        log(f"  {active:.0%} of the hidden units are active at the first x")
        if shifts:
            log(f"  biases shifted, layer by layer: {', '.join(f'{shift:+.3f}' for shift in shifts)}")
        x = next(points)
        running: dict[str, Worker] = {}
        measured: dict[str, Measured] = {}
        for name in sides:  # one after another: what they read and compile would disturb each other
            try:
                options = _best_options(name, job, x)
                worker = stack.enter_context(Worker(name, job))
                ready = worker.prepare(options)
                first, verified = worker.ask(x, keep=Path(folder) / f"{name}.npy")
            except SideError as error:
                skipped[name] = str(error)
                log(f"  {name:11s} left out: {error}")
                continue
            versions |= worker.versions
            running[name] = worker
            measured[name] = Measured(name, options, ready + (verified or first))
        drop_wrong(measured, skipped, Path(folder), log)
        for name in set(running) - set(measured):
            running.pop(name).close()
        _rounds(running, measured, points, limits, skipped)
        for name, worker in running.items():
            if name in measured:
                measured[name].peak_bytes, measured[name].base_bytes = worker.memory()
                measured[name].facts = worker.facts(x)
    for each in measured.values():
        log("  " + line_of(each))
    return {
        "case": case.name,
        "kind": case.kind,
        "K": case.K,
        "N": int(np.prod(case.shape)),
        "points": case.points,
        "shifts": shifts,
        "active": active,
        "skipped": skipped,
        "versions": versions,
        "sides": [_plain(each) for each in measured.values()],
        "ratios": ratios(measured),
    }


def line_of(each: Measured) -> str:
    """One side's result, for a terminal."""
    milliseconds = statistics.median(each.seconds) * 1e3
    verified = f" ({statistics.median(each.verified) * 1e3:.1f} verified)" if each.verified else ""
    options = ", ".join(
        f"{value}" if key == "call" else f"{key} {value}" for key, value in each.options.items()
    )
    off = "" if each.deviation is None else f", W within {each.deviation:.0e}"
    return (
        f"{each.side:11s} {milliseconds:9.1f} ms{verified}, {len(each.seconds)} rounds, "
        f"peak {each.peak_bytes / 2**20:.0f} MiB, {options}{off}"
    )


def _job(case: Case, folder: Path, engine: str) -> tuple[Job, Iterator[Array], float, list[float]]:
    """The files that all sides read, the points, the fraction of active units, the shifts of the biases."""
    import torch
    from networks import active_fraction, exported, largest_activation

    net, shifts = case.made()
    random = np.random.default_rng(1)
    shape = (case.points, *case.shape[1:]) if case.points else case.shape

    def points() -> Iterator[Array]:
        while True:
            yield random.random(shape, np.float32)

    example = torch.from_numpy(np.random.default_rng(1).random(shape, np.float32))[:1]
    (folder / "model.onnx").write_bytes(exported(net, example))
    with (folder / "weights.npz").open("wb") as file:
        np.savez(file, **{name: value.numpy() for name, value in net.state_dict().items()})
    job = Job(case, folder, largest_activation(net, example), engine)
    return job, points(), active_fraction(net, example), shifts


def _best_options(name: str, job: Job, x: Array) -> dict[str, Any]:
    """The side's fastest options, found in a process of their own: its memory is not the answer's."""
    if name in OURS:
        return {"engine": job.engine}
    with Worker(name, job) as worker:
        return dict(worker.candidates(x)[0]["options"])


def drop_wrong(measured: dict[str, Measured], skipped: dict[str, str], folder: Path, log: Log) -> None:
    """Compare every side's W at one point with ilin's, by the largest entry; who is wrong is not timed."""
    reference = next((name for name in OURS if name in measured), None)
    if reference is None:
        return
    ours = np.load(folder / f"{reference}.npy", mmap_mode="r")
    scale = max(float(np.abs(row).max(initial=0)) for row in ours) or 1.0
    for name in [name for name in measured if name != reference]:
        theirs = np.load(folder / f"{name}.npy", mmap_mode="r").reshape(ours.shape)
        differences = [float(np.abs(a - b).max(initial=0)) for a, b in zip(ours, theirs, strict=True)]
        # Of many points, in some a unit at the edge of rounding chooses otherwise: another W, and right.
        off = (
            float(np.quantile(differences, 0.9) if ours.ndim == 3 else max(differences, default=0.0)) / scale
        )
        measured[name].deviation = off
        if not off <= AGREES:
            skipped[name] = f"its W differs from {reference}'s by {off:.1e} of the largest entry"
            log(f"  {name:11s} left out: {skipped[name]}")
            del measured[name]


def _rounds(
    running: dict[str, Worker],
    measured: dict[str, Measured],
    points: Iterator[Array],
    limits: Limits,
    skipped: dict[str, str],
) -> None:
    """Alternate the sides; each round has a fresh x, and the next round starts with another side."""
    names = list(running)
    for index in range(limits.rounds):
        x = next(points)
        for name in names[index % len(names) :] + names[: index % len(names)]:
            each = measured.get(name)
            if each is None or _had_enough(each, limits):
                continue
            time.sleep(SETTLE)
            try:
                seconds, verified = running[name].ask(x)
            except SideError as error:
                skipped[name] = str(error)
                del measured[name]
                continue
            each.seconds.append(seconds)
            if verified is not None:
                each.verified.append(verified)


def _had_enough(each: Measured, limits: Limits) -> bool:
    at_least = 1 if each.seconds and each.seconds[0] > ONCE else limits.at_least
    return len(each.seconds) >= at_least and sum(each.verified or each.seconds) > limits.seconds


def ratios(measured: dict[str, Measured]) -> dict[str, dict[str, Any]]:
    """The best peer's seconds over ilin's, in the median of the rounds that both took part in."""
    peers = [each for name, each in measured.items() if name not in OURS]
    if not peers:
        return {}
    best = min(peers, key=lambda each: statistics.median(each.seconds))
    found = {}
    for name in (name for name in OURS if name in measured):
        ours = measured[name]
        found[name] = {
            "peer": best.side,
            "map": _ratio(best.seconds, ours.seconds),
            "verified": _ratio(best.seconds, ours.verified),
        }
    return found


def _ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=False))


def _plain(each: Measured) -> dict[str, Any]:
    return {
        "side": each.side,
        "options": each.options,
        "ready_s": each.ready,
        "deviation": each.deviation,
        "median_s": statistics.median(each.seconds),
        "median_verified_s": statistics.median(each.verified) if each.verified else None,
        "seconds": each.seconds,
        "verified_seconds": each.verified,
        "peak_bytes": each.peak_bytes,
        "base_bytes": each.base_bytes,
        "facts": each.facts,
    }
