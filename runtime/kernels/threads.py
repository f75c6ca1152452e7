"""Threads of the kernels: how many, and whether several Python threads may launch kernels at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np
from numba import njit, prange

_one_at_a_time = threading.RLock()


@njit(cache=True, parallel=True)
def _first_launch(x):
    for i in prange(len(x)):
        x[i] = i


def workers() -> int:
    """Threads that a kernel launched from this Python thread will use."""
    return int(numba.get_num_threads())


@contextmanager
def threads_safe() -> Iterator[None]:
    """Hold a lock where numba's threading layer crashes when two Python threads launch kernels at once.

    That is its own layer, "workqueue", which it takes where neither TBB nor OpenMP is found.
    """
    with _one_at_a_time:
        try:
            layer = numba.threading_layer()
        except ValueError:  # not chosen before the first launch
            _first_launch(np.empty(2))
            layer = numba.threading_layer()
    if layer != "workqueue":
        yield
        return
    with _one_at_a_time:
        yield
