"""Jacobians of a program's tensors by its inputs, in one walk: of each from those that its step reads.

With y = Σ Lᵢ uᵢ + c it is J_y = Σ Lᵢ J_uᵢ. A sweep back makes rows of one tensor; where those of layer behind
layer are wanted, each layer's follow by one product from those of the layer below. What is known is not
computed: J of an input is the identity, so that behind a first layer it is that layer's matrix; a unit that
is off has no row; and what only moves entries moves rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from ..runtime.primitives import (
    Array,
    Broadcast,
    Chain,
    Contract,
    Gather,
    Primitive,
    Reshape,
    Scale,
    Transpose,
)
from ..runtime.program import LinearProgram, Step

_BLOCK_BYTES = 256 << 20  # of the Jacobians that are alive at once
_ENTRIES = 1 << 25  # of a step's matrix, up to which it is made
_ALIVE = 4  # tensors of the largest size among them, what a product copies counted in


@dataclass(frozen=True)
class Jacobian:
    """One tensor's, by some columns of x."""

    rows: Array  # (k, columns) float64
    units: Array | None = None  # (k,) flat, ascending: the other units' rows are zero; None for all units

    def whole(self, size: int) -> Array:
        """The rows of all units, (size, columns)."""
        if self.units is None:
            return self.rows
        rows = np.zeros((size, self.rows.shape[1]))
        rows[self.units] = self.rows
        return rows


@dataclass(frozen=True)
class Diagonal:
    """An input's: unit i depends on column i alone. Likewise behind what only scales its entries."""

    units: slice  # whose columns are among the wanted
    first: int  # column of the first of them
    columns: int  # that are wanted, those of other inputs included
    factor: Array | None = None  # (size of the tensor,); None for ones

    def scaled(self, factor: Array) -> Diagonal:
        """The same with its entries scaled."""
        return replace(self, factor=factor if self.factor is None else self.factor * factor)

    def whole(self, size: int) -> Jacobian:
        """As a matrix, (size, columns)."""
        rows, units = np.zeros((size, self.columns)), np.arange(size)[self.units]
        columns = self.first + np.arange(len(units))
        rows[units, columns] = 1.0 if self.factor is None else self.factor[units]
        return Jacobian(rows)

    def through(self, matrix: Array) -> Jacobian:
        """Behind a matrix, (k, size): its own columns, scaled."""
        rows = matrix[:, self.units]
        if self.factor is not None:
            rows = rows * self.factor[self.units]
        if rows.shape[1] == self.columns:
            return Jacobian(rows)
        among = np.zeros((len(rows), self.columns))
        among[:, self.first : self.first + rows.shape[1]] = rows
        return Jacobian(among)


def jacobians(program: LinearProgram) -> Iterator[tuple[slice, Step, Jacobian]]:
    """The Jacobian of every step's output, in float64: columns by blocks where they would take much memory.

    Yields:
        The columns of x, a step, and its output's Jacobian by these columns, valid until the next.
    """
    widest = max((step.size for step in program.steps), default=1)
    block = max(1, _BLOCK_BYTES // (_ALIVE * 8 * max(1, widest)))
    for first in range(0, program.in_size, block):
        columns = slice(first, min(program.in_size, first + block))
        for step, found in _walk(program, columns):
            yield columns, step, found


def work_of(program: LinearProgram) -> Mapping[str, int]:
    """Step output to the multiply-adds, or moves, that its Jacobian takes for each column of x."""
    plain = {name for name, _ in program.inputs}
    work: dict[str, int] = {}
    for step in program.steps:
        known = all(name in plain for name, _ in step.terms)
        if known and all(isinstance(L, Scale | Reshape) for _, L in step.terms) and len(step.terms) == 1:
            plain.add(step.output)
        work[step.output] = step.size if known else sum(max(L.work, L.out_size) for _, L in step.terms)
    return work


def _walk(program: LinearProgram, columns: slice) -> Iterator[tuple[Step, Jacobian]]:
    """One block of columns."""
    alive: dict[str, Jacobian | Diagonal] = {}
    start, count = 0, columns.stop - columns.start
    for name, shape in program.inputs:
        size = int(np.prod(shape, dtype=np.int64))
        low, high = (min(max(end - start, 0), size) for end in (columns.start, columns.stop))
        alive[name] = Diagonal(slice(low, high), start + low - columns.start, count)
        start += size
    last = program.last_uses()
    for position, step in enumerate(program.steps):
        found = _behind(step, alive, count)
        alive[step.output] = found
        yield step, _rows(found, step.size)
        for name in last.get(position, ()):
            alive.pop(name, None)


def _behind(step: Step, alive: Mapping[str, Jacobian | Diagonal], count: int) -> Jacobian | Diagonal:
    """J of a step's output: Σ Lᵢ Jᵢ."""
    if len(step.terms) == 1:
        ((name, L),) = step.terms
        return _through(L, alive[name])
    if not step.terms:
        return Jacobian(np.zeros((0, count)), np.zeros(0, np.intp))
    total = np.zeros((step.size, count))
    for name, L in step.terms:
        part = _rows(_through(L, alive[name]), step.size)
        if part.units is None:
            total += part.rows
        else:
            total[part.units] += part.rows
    return Jacobian(total)


def _rows(found: Jacobian | Diagonal, size: int) -> Jacobian:
    return found if isinstance(found, Jacobian) else found.whole(size)


def _through(L: Primitive, below: Jacobian | Diagonal) -> Jacobian | Diagonal:
    """L J."""
    if isinstance(L, Reshape):
        return below
    if isinstance(L, Chain):
        return reduce(lambda done, part: _through(part, done), L.parts, below)
    if isinstance(below, Diagonal):
        if isinstance(L, Scale):
            return below.scaled(_factor(L))
        known = L.dense if isinstance(L, Contract) else None
        if known is None and L.in_size * L.out_size > _ENTRIES:
            return _through(L, below.whole(L.in_size))
        return below.through(L.matrix().toarray() if known is None else known)
    if isinstance(L, Scale):
        return _scaled(below, _factor(L))
    if isinstance(L, Gather | Transpose | Broadcast):
        return _moved(below, L)
    if isinstance(L, Contract) and L.dense is not None:
        matrix = L.dense if below.units is None else L.dense.take(below.units, axis=1)
        return Jacobian(matrix @ below.rows)
    rows = below.whole(L.in_size)
    block = np.moveaxis(rows.reshape(*L.in_shape, rows.shape[1]), -1, 0)
    return Jacobian(L.apply(block).reshape(rows.shape[1], L.out_size).T)


def _factor(L: Scale) -> Array:
    factor = L.factor if L.factor.dtype == bool else L.factor.astype(np.float64, copy=False)
    return factor.ravel() if factor.shape == L.in_shape else np.broadcast_to(factor, L.in_shape).ravel()


def _scaled(below: Jacobian, factor: Array) -> Jacobian:
    """Without the rows that become zero."""
    mine = factor if below.units is None else factor[below.units]
    live = mine.nonzero()[0]
    if len(live) == len(mine):
        return below if mine.dtype == bool else replace(below, rows=below.rows * mine[:, None])
    rows = below.rows.take(live, axis=0)
    if mine.dtype != bool:
        rows *= mine[live, None]
    return Jacobian(rows, live if below.units is None else below.units[live])


def _moved(below: Jacobian, L: Primitive) -> Jacobian:
    """Behind what takes each entry from one place, or none (-1)."""
    if isinstance(L, Gather):
        source = L.index.ravel()
    else:
        source = L.apply(np.arange(L.in_size).reshape(1, *L.in_shape)).ravel()
    if below.units is not None:
        place = np.full(L.in_size + 1, -1)  # the last for what comes from nowhere
        place[below.units] = np.arange(len(below.units))
        source = place[source]
    live = (source >= 0).nonzero()[0]
    if len(live) == len(source):
        return Jacobian(below.rows.take(source, axis=0))
    return Jacobian(below.rows.take(source[live], axis=0), live)
