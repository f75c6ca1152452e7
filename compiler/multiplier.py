"""Terms of a program ready to be multiplied by: as explicit matrices over live units, or matrix-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike
from scipy import sparse

from ..runtime.primitives import Array, Primitive, Shape, flat
from ..runtime.program import LinearProgram

Key = tuple[int, int]  # positions of a step and of one of its terms


@dataclass(frozen=True)
class Multiplier:
    """One program's terms, each ready to be multiplied by; (step, term) positions are the keys."""

    free: Mapping[Key, Primitive]
    explicit: Mapping[Key, tuple[Primitive, sparse.csr_array, Array, Array]]

    def back(self, key: Key, block: Array) -> Array:
        """Rows back through a term: (K, *out_shape) to (K, *in_shape)."""
        if key in self.free:
            return self.free[key].T.apply(block)
        L, matrix, above, below = self.explicit[key]
        return _placed((matrix.T @ flat(block)[:, above].T).T, below, L.in_shape)


def _placed(values: Array, units: Array, shape: Shape) -> Array:
    """A block that is zero but for the given units."""
    block = np.zeros((len(values), math.prod(shape)), values.dtype)
    block[:, units] = values
    return block.reshape(len(values), *shape)


@dataclass
class MatrixStore:
    """Matrices whose structure is expensive to build and the same at every point."""

    _kept: dict[int, tuple[Primitive, sparse.csr_array]] = field(default_factory=dict)

    def matrix(self, L: Primitive) -> sparse.csr_array:
        """The matrix of a primitive that is the same at every point, built once."""
        kept = self._kept.get(id(L))
        if kept is None or kept[0] is not L:
            kept = self._kept[id(L)] = (L, L.matrix())
        return kept[1]


def _live_part(
    matrix: sparse.csr_array, above: Array, below: Array, dtype: DTypeLike
) -> tuple[sparse.csr_array, Array, Array]:
    """The rows and columns of a matrix that are live, with their positions."""
    rows, columns = np.flatnonzero(above), np.flatnonzero(below)
    if len(rows) < matrix.shape[0]:
        matrix = sparse.csr_array(matrix[rows])
    if len(columns) < matrix.shape[1]:
        matrix = sparse.csr_array(matrix[:, columns])
    return sparse.csr_array(matrix.astype(dtype, copy=False)), rows, columns


def matrix_free(program: LinearProgram) -> Multiplier:
    """Every term applied to whole blocks."""
    terms = enumerate(step.terms for step in program.steps)
    return Multiplier({(at, i): L for at, parts in terms for i, (_, L) in enumerate(parts)}, {})


def explicit(program: LinearProgram, rows: Array, dtype: DTypeLike, store: MatrixStore) -> Multiplier:
    """Every term as an explicit matrix over the units that are live and that a row can depend on."""
    live, read = live_units(program), read_units(program, rows)
    matrices: dict[Key, tuple[Primitive, sparse.csr_array, Array, Array]] = {}
    for position, step in enumerate(program.steps):
        above = read.get(step.output, np.zeros(step.size, bool))
        for index, (name, L) in enumerate(step.terms):
            matrix = store.matrix(L) if step.fixed else L.matrix()
            matrices[position, index] = (L, *_live_part(matrix, above, live[name], dtype))
    return Multiplier({}, matrices)


def live_units(program: LinearProgram) -> dict[str, Array]:
    """Tensor to the mask of its units that can be nonzero, by x or by an offset: dead ones cost nothing."""
    live = {name: np.ones(shape, bool) for name, shape in program.inputs}
    for step in program.steps:
        mask = np.zeros(step.shape, bool)
        for name, L in step.terms:
            mask = mask | L.reach(live[name])
        if step.offset is not None:
            mask = mask | (step.offset != 0)
        live[step.output] = mask
    return {name: mask.ravel() for name, mask in live.items()}


def read_units(program: LinearProgram, rows: Array) -> dict[str, Array]:
    """Tensor to the mask of its units that one of the rows can depend on."""
    read: dict[str, Array] = {}
    for name, shape, _, entries in program.by_output(rows):
        mask = np.zeros(math.prod(shape), bool)
        mask[entries] = True
        read[name] = mask.reshape(shape)
    for step in reversed(program.steps):
        above = read.get(step.output)
        if above is None:
            continue
        for name, L in step.terms:
            below = L.T.reach(above)
            read[name] = read[name] | below if name in read else below
    return {name: mask.ravel() for name, mask in read.items()}
