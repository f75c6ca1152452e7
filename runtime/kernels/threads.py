"""Threads of the kernels: how they wait, how many, and whether Python threads may launch kernels at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba

# A sweep launches dozens of kernels, some of them for microseconds, and between two sweeps onnxruntime
# needs the processors. GNU OpenMP's threads wait for the next kernel by spinning: for milliseconds by
# default, which holds onnxruntime up, and not at all under OMP_WAIT_POLICY=passive, which makes each launch
# wait for a thread to wake. This many turns are some microseconds.
_SPIN = "2000"

_one_at_a_time = threading.RLock()


def _start() -> None:
    """Start the threads; OpenMP reads how they wait then, and never again."""
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        numba.get_num_threads()
        return
    os.environ["GOMP_SPINCOUNT"] = _SPIN
    try:
        numba.get_num_threads()
    finally:
        del os.environ["GOMP_SPINCOUNT"]


_start()


def workers() -> int:
    """Threads that a kernel launched from this Python thread will use."""
    return int(numba.get_num_threads())


@contextmanager
def threads_safe() -> Iterator[None]:
    """Hold a lock where numba's threading layer crashes when two Python threads launch kernels at once.

    That is its own layer, "workqueue", which it takes where neither TBB nor OpenMP is found.
    """
    if numba.threading_layer() != "workqueue":
        yield
        return
    with _one_at_a_time:
        yield
