"""Compose: a linear program to W, b and b's shares, leg by leg of a plan.

Reverse: a block of rows is multiplied by each step's transpose, back to the leg's lower cut. Forward: unit
vectors of the lower cut are carried to the upper one. Where a plan has several legs, the rows found so far
are multiplied by the next leg's map: W = W_top … W_bottom, and a lower step's share in b follows likewise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from ..runtime.stack import stacked
from ..runtime.transpose import transposed
from .cuts import live_elements
from .engine import Engine
from .plan import Leg, Plan
from .sweep import Progress, Sweep, Swept


@dataclass(frozen=True)
class Composed:
    """The affine map at x."""

    W: Array  # (K, N)
    b: Array  # (K,)
    shares: Array  # (steps, K): what each step's offset adds to b


def compose(
    program: LinearProgram,
    rows: Array,
    plan: Plan,
    engine: Engine,
    dtype: np.dtype[Any],
    progress: Progress | None = None,
) -> Composed:
    """Compose the program for the given rows.

    Args:
        program: the network at x.
        rows: (K,) flat indices into the stacked, flattened outputs.
        plan: how.
        engine: keeps structure from point to point.
        dtype: floating type of the result.
        progress: called with the passes done and their number.
    """
    count = _Counter(plan, progress)
    shares = np.zeros((len(program.steps), len(rows)))
    W: Array | None = None
    for leg in plan.legs:
        part = leg.of(program)
        mine = shares[leg.first : leg.last]
        if W is None:
            W = _first(leg, part, rows, mine, engine, dtype, count)
        else:
            W = _joined(W, leg, part, needed_elements(program, leg, W), mine, engine, dtype, count)
    assert W is not None
    return Composed(W, shares.sum(axis=0), shares)


def compose_stacked(
    programs: Sequence[LinearProgram], rows: Sequence[Array], engine: Engine, dtype: np.dtype[Any]
) -> list[Composed]:
    """Compose the programs of several points by one sweep over all of them, in reverse and fused.

    Args:
        programs: the network at each point, of one structure.
        rows: (K,) flat output indices for each point.
        engine: keeps structure from point to point.
        dtype: floating type of the results.

    Raises:
        NotStackable: the network does more than treat a batch image by image.
    """
    one, many = programs[0], stacked(programs, engine.stacks)
    wanted = []  # an output of the stack holds the points' one behind the other
    for image, mine in enumerate(rows):
        positions = np.empty_like(mine)
        first = 0
        for _, shape, here, entries in one.by_output(mine):
            size = math.prod(shape)
            positions[here] = first + image * size + entries
            first += len(programs) * size
        wanted.append(positions)
    found = engine.stacked(many, np.stack(wanted, axis=1), dtype)
    sizes = [math.prod(shape) for _, shape in one.inputs]
    ends = np.cumsum([0, *(len(programs) * size for size in sizes)])
    results = []
    for image in range(len(programs)):
        parts = [
            found.W[:, end + image * size : end + (image + 1) * size]
            for end, size in zip(ends, sizes, strict=False)
        ]
        shares = np.ascontiguousarray(found.shares[:, image])
        W = np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts, axis=1)
        results.append(Composed(W, shares.sum(axis=0), shares))
    return results


def needed_elements(program: LinearProgram, leg: Leg, W: Array) -> Array:
    """Elements of a leg's upper cut that the rows so far read and that can depend on x."""
    return np.flatnonzero(W.any(axis=0) & live_elements(program, leg.above))


def _first(
    leg: Leg,
    part: LinearProgram,
    rows: Array,
    shares: Array,
    engine: Engine,
    dtype: np.dtype[Any],
    count: _Counter,
) -> Array:
    blocks = swept(leg, part, rows, engine, dtype, count)
    if len(rows) <= leg.block or leg.direction == "forward":
        for _, found in blocks:
            shares[:] = found.shares
            return found.W
    W = np.empty((len(rows), part.in_size), dtype)
    for block, found in blocks:
        W[block], shares[:, block] = found.W, found.shares
    return W


def _joined(
    upper: Array,
    leg: Leg,
    part: LinearProgram,
    needed: Array,
    shares: Array,
    engine: Engine,
    dtype: np.dtype[Any],
    count: _Counter,
) -> Array:
    """The rows so far, (K, above), times the leg's map, block by block of its rows."""
    W = np.empty((len(upper), part.in_size), dtype)
    if not len(needed):
        W[:] = 0
    if leg.direction == "reverse":
        count.add(leg.passes - len(needed))
    for block, found in swept(leg, part, needed, engine, dtype, count):
        columns = np.ascontiguousarray(upper[:, needed[block]])
        shares += found.shares @ columns.T
        if block.start == 0:
            np.matmul(columns, found.W, out=W)
        elif W.size:
            _add_product(W, columns, np.ascontiguousarray(found.W))
    return W


def _add_product(W: Array, left: Array, right: Array) -> None:
    """W += left @ right, in place: numpy would make the product first, as large as W itself."""
    from scipy.linalg.blas import dgemm, sgemm

    product = sgemm if W.dtype == np.float32 else dgemm
    summed = product(1.0, right.T, left.T, beta=1.0, c=W.T, overwrite_c=True)  # BLAS counts by columns
    assert np.shares_memory(summed, W)


def swept(
    leg: Leg,
    part: LinearProgram,
    rows: Array,
    engine: Engine,
    dtype: np.dtype[Any],
    count: _Counter | None = None,
) -> Iterator[tuple[slice, Swept]]:
    """A leg's map for some of its rows, block by block: positions in `rows`, and what was found."""
    if leg.direction == "forward":
        yield slice(0, len(rows)), _all_columns(leg, part, rows, engine, dtype, count)
        return
    sweep = engine.rows(leg, part, rows, dtype)
    for first in range(0, len(rows), leg.block):
        block = slice(first, min(len(rows), first + leg.block))
        yield block, sweep(rows[block])
        if count:
            count.add(block.stop - block.start)


def _all_columns(
    leg: Leg, part: LinearProgram, rows: Array, engine: Engine, dtype: np.dtype[Any], count: _Counter | None
) -> Swept:
    N = part.in_size
    bearing = [position for position, step in enumerate(part.steps) if step.offset is not None]
    wanted, sweep = columns_on(leg, part, engine, dtype)
    W = np.empty((len(rows), N), dtype)
    shares = np.zeros((len(part.steps), len(rows)))
    for first in range(0, len(wanted), leg.block):
        columns = wanted[first : first + leg.block]
        found = sweep(columns).W[:, rows]
        inner = int(np.count_nonzero(columns < N))
        W[:, columns[:inner]] = found[:inner].T
        shares[[bearing[column - N] for column in columns[inner:]]] = found[inner:]
        if count:
            count.add(len(columns))
    return Swept(W, shares)


def columns_on(leg: Leg, part: LinearProgram, engine: Engine, dtype: np.dtype[Any]) -> tuple[Array, Sweep]:
    """A leg's map column by column: the rows of its transpose.

    Returns:
        The columns' numbers, first N of the lower cut's elements, then one for each step that has an offset,
        which gives its share; and the sweep that makes them, (k,) of the numbers to (k, upper cut).
    """
    across = transposed(part, offsets=True)
    wanted = np.arange(across.out_size)
    return wanted, engine.rows(leg, across, wanted, dtype)


class _Counter:
    """Passes done, of all legs."""

    def __init__(self, plan: Plan, progress: Progress | None) -> None:
        self.total, self.done, self.progress = sum(leg.passes for leg in plan.legs), 0, progress

    def add(self, passes: int) -> None:
        self.done += passes
        if self.progress:
            self.progress(self.done, self.total)
