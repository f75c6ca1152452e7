"""Many points: taken apart, worked on side by side, given back in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..runtime.affine_map import AffineMap
from ..runtime.errors import IlinError, InputError
from ..runtime.stack import NotStackable
from .answer import Asked
from .compose import Composed
from .plan import Plan
from .rows import Rows
from .trace import Given

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .pipeline import CompiledModel

_MOST = 16  # points in one sweep
_SMALL = 0.05  # seconds of a sweep from which a point fills the processors by itself

P = TypeVar("P")
T = TypeVar("T")


def instances_of(X: Given) -> Iterator[Given]:
    """Each instance along axis 0 of an array, or of all arrays of a mapping.

    Raises:
        InputError: arrays of different lengths, or without an axis 0; a mapping of nothing.
    """
    if isinstance(X, Iterator):
        return X
    if not isinstance(X, Mapping):
        stack = np.asarray(X)
        if not stack.ndim:
            raise InputError(
                f"X is {type(X).__name__}; instances come along axis 0 of an array, or from an iterator"
            )
        return iter(stack)
    stacks = {name: np.asarray(values) for name, values in X.items()}
    counts = {name: len(values) if values.ndim else None for name, values in stacks.items()}
    if not counts:
        raise InputError("X names no input; give a mapping from input name to instances along axis 0")
    if len(set(counts.values())) > 1 or None in counts.values():
        raise InputError(f"every input needs as many instances along axis 0 as the others, not {counts}")
    count = next(iter(counts.values())) or 0
    return ({name: values[index] for name, values in stacks.items()} for index in range(count))


def answers(
    compiled: CompiledModel, points: Iterator[Given], rows: Rows, workers: int | None
) -> Iterator[AffineMap]:
    """Maps of all points in their order; an error says which instance it is about."""

    def alone(numbered: tuple[int, Given]) -> AffineMap:
        index, point = numbered
        with naming(index):
            return compiled.at(point, rows)

    numbered = enumerate(points)
    if workers is None:
        yield from _in_batches(compiled, numbered, rows)
        workers = max(1, processors() // 4)  # the rest, where they cannot share a sweep
    yield from in_order(alone, numbered, workers)


@contextmanager
def naming(index: int) -> Iterator[None]:
    """Say which instance an error is about, counted from 0."""
    try:
        yield
    except IlinError as error:
        raise type(error)(f"instance {index}: {error}") from error


def _in_batches(
    compiled: CompiledModel, points: Iterator[tuple[int, Given]], rows: Rows
) -> Iterator[AffineMap]:
    """Maps by one sweep for several points, as long as that can be: the first batch is one point."""
    size = 1
    while batch := list(islice(points, size)):
        asked: list[Asked] = []
        failure: IlinError | None = None
        try:
            for index, point in batch:
                with naming(index):
                    asked.append(compiled._asked(point, rows))
        except IlinError as error:  # raised in its turn, behind the maps of the points before
            failure = error
        together: list[Composed] | None = None
        if len(asked) > 1:
            try:
                together = compiled._compose_together(asked)
            except NotStackable:
                size = 0
        for position, ((index, _), one) in enumerate(zip(batch, asked, strict=False)):
            with naming(index):
                composed = together[position] if together else compiled._compose(one)
            yield compiled._answer(one, composed)
        if failure:
            raise failure
        size = min(size and _points_at_once(asked[0].plan), _MOST)


def _points_at_once(plan: Plan) -> int:
    """How many points share a sweep; none where one point is work enough, or the sweep is of another kind."""
    leg = plan.legs[0]
    small = len(plan.legs) == 1 and leg.passes <= leg.block and plan.seconds < _SMALL
    if not small or leg.direction != "reverse" or leg.engine != "fused":
        return 0
    return int(min(plan.limit, 1 << 30) // max(1, leg.bytes + plan.W_bytes))


def in_order(work: Callable[[P], T], points: Iterator[P], workers: int) -> Iterator[T]:
    """The results of all points in their order, at most `workers` in work or waiting at a time.

    The first point is worked on alone: it prepares what all others share.
    """
    for point in islice(points, 1):
        yield work(point)
    if workers < 2:
        yield from map(work, points)
        return
    from concurrent.futures import ThreadPoolExecutor

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
