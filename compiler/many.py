"""Many points: taken apart, worked on side by side, given back in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from ..runtime.errors import InputError
from .trace import Given

T = TypeVar("T")


def instances_of(X: Given) -> Iterator[Given]:
    """Each instance along axis 0 of an array, or of all arrays of a mapping.

    Raises:
        InputError: arrays of different lengths, or without an axis 0.
    """
    if not isinstance(X, Mapping):
        stack = np.asarray(X)
        if not stack.ndim:
            raise InputError("X holds a single number; instances come along axis 0")
        return iter(stack)
    stacks = {name: np.asarray(values) for name, values in X.items()}
    counts = {name: len(values) if values.ndim else None for name, values in stacks.items()}
    if len(set(counts.values())) > 1 or None in counts.values():
        raise InputError(f"every input needs as many instances along axis 0 as the others, not {counts}")
    count = next(iter(counts.values()), 0) or 0
    return ({name: values[index] for name, values in stacks.items()} for index in range(count))


def in_order(work: Callable[[Given], T], points: Iterator[Given], workers: int) -> Iterator[T]:
    """The results of all points in their order, at most `workers` in work or waiting at a time.

    The first point is worked on alone: it prepares what all others share.
    """
    for point in islice(points, 1):
        yield work(point)
    if workers < 2:
        yield from map(work, points)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ilin")
    waiting: deque[Future[T]] = deque()
    try:
        for point in points:
            waiting.append(pool.submit(work, point))
            if len(waiting) == workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also where the caller stops early, or a point fails
        pool.shutdown(wait=True, cancel_futures=True)


def processors() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1
