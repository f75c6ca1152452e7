"""The machine that a run was made on, and how fast it multiplies."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

THREADS = 2


def two_threads() -> None:
    """Give this process, and those it starts, two processors and two threads. Before numpy is imported."""
    for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM", "NUMEXPR"):
        os.environ[f"{name}_NUM_THREADS"] = str(THREADS)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def facts() -> dict[str, Any]:
    """Processor, memory, operating system and Python."""
    import psutil

    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": THREADS,
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def multiply_adds_per_second(n: int = 2048, rounds: int = 7) -> float:
    """What a square float32 matrix product reaches, at best."""
    import numpy as np  # not earlier: it reads the number of threads when it is imported

    A, B = (np.random.default_rng(i).random((n, n), np.float32) for i in range(2))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        A @ B
        best = min(best, time.perf_counter() - start)
    return n**3 / best


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
