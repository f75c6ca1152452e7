"""How a block of rows is multiplied by a step's transpose: through explicit matrices, or matrix-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike
from scipy import sparse

from ..runtime.primitives import Array, Chain, Contract, Conv, ConvTranspose, Primitive, Shape, Sparse, flat
from ..runtime.program import LinearProgram

EngineName = Literal["auto", "sparse", "matrix-free"]
ENGINES: tuple[EngineName, ...] = ("auto", "sparse", "matrix-free")

# Cost of one multiply-add in nanoseconds, measured on two cores of an AMD EPYC (docs/decisions/0002): a
# sparse product over live units, and building its matrix, once per model and sliced per input; and the
# same work done by BLAS on all units.
_SPARSE_PRODUCT, _SLICE_ENTRY, _DENSE_PRODUCT = 0.08, 12.0, 0.012
_LARGEST_MATRIX = 30_000_000  # entries: 240 MB in float32


@dataclass(frozen=True)
class Multiplier:
    """One program's terms, each ready to be multiplied by; (step, term) positions are the keys."""

    free: Mapping[tuple[int, int], Primitive]
    explicit: Mapping[tuple[int, int], tuple[Primitive, sparse.csr_array, Array, Array]]

    def back(self, key: tuple[int, int], block: Array) -> Array:
        """Rows back through a term: (K, *out_shape) to (K, *in_shape)."""
        if key in self.free:
            return self.free[key].T.apply(block)
        L, matrix, above, below = self.explicit[key]
        return _placed((matrix.T @ flat(block)[:, above].T).T, below, L.in_shape)

    def on(self, key: tuple[int, int], block: Array) -> Array:
        """Columns on through a term: (B, *in_shape) to (B, *out_shape)."""
        if key in self.free:
            return self.free[key].apply(block)
        L, matrix, above, below = self.explicit[key]
        return _placed((matrix @ flat(block)[:, below].T).T, above, L.out_shape)


def _placed(values: Array, units: Array, shape: Shape) -> Array:
    """A block that is zero but for the given units."""
    block = np.zeros((len(values), math.prod(shape)), values.dtype)
    block[:, units] = values
    return block.reshape(len(values), *shape)


@dataclass
class Engine:
    """Multiplies by transposed steps. Structure that does not depend on the point is kept."""

    name: EngineName = "auto"
    _matrices: dict[int, tuple[Primitive, sparse.csr_array]] = field(default_factory=dict)

    def prepare(self, program: LinearProgram, rows: Array, dtype: DTypeLike) -> Multiplier:
        """Decide for each term of a program how it is multiplied by, and get its matrix where one is used."""
        live, read = live_units(program), read_units(program, rows)
        free: dict[tuple[int, int], Primitive] = {}
        explicit: dict[tuple[int, int], tuple[Primitive, sparse.csr_array, Array, Array]] = {}
        for position, step in enumerate(program.steps):
            above = read.get(step.output)
            for index, (name, L) in enumerate(step.terms):
                if above is None or not self._explicit(L, len(rows), above, live[name]):
                    free[position, index] = L
                else:
                    explicit[position, index] = (L, *self._sliced(L, above, live[name], dtype))
        return Multiplier(free, explicit)

    def _explicit(self, L: Primitive, K: int, above: Array, below: Array) -> bool:
        """Whether the live part of an explicit matrix is expected to beat the matrix-free product."""
        if self.name != "auto":
            return self.name == "sparse"
        if not isinstance(L, Conv | ConvTranspose) or L.work > _LARGEST_MATRIX:
            return False
        share = above.mean() * below.mean()
        return bool(L.work * share * (_SPARSE_PRODUCT * K + _SLICE_ENTRY) < L.work * K * _DENSE_PRODUCT)

    def _sliced(
        self, L: Primitive, above: Array, below: Array, dtype: DTypeLike
    ) -> tuple[sparse.csr_array, Array, Array]:
        """The rows and columns of L's matrix that are live, with their positions."""
        matrix = self._matrix(L)
        rows, columns = np.flatnonzero(above), np.flatnonzero(below)
        if len(rows) < matrix.shape[0]:
            matrix = matrix[rows]
        if len(columns) < matrix.shape[1]:
            matrix = matrix[:, columns]
        return sparse.csr_array(matrix.astype(dtype, copy=False)), rows, columns

    def _matrix(self, L: Primitive) -> sparse.csr_array:
        """L's matrix; kept where its structure is expensive, and the same at every point."""
        if not isinstance(L, Conv | ConvTranspose | Contract | Chain | Sparse):
            return L.matrix()
        kept = self._matrices.get(id(L))
        if kept is None or kept[0] is not L:
            kept = self._matrices[id(L)] = (L, L.matrix())
        return kept[1]


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
    start = 0
    for name, shape in program.outputs:
        size = int(np.prod(shape, dtype=np.int64))
        mask = np.zeros(size, bool)
        mask[rows[(rows >= start) & (rows < start + size)] - start] = True
        read[name] = mask.reshape(shape)
        start += size
    for step in reversed(program.steps):
        above = read.get(step.output)
        if above is None:
            continue
        for name, L in step.terms:
            below = L.T.reach(above)
            read[name] = read[name] | below if name in read else below
    return {name: mask.ravel() for name, mask in read.items()}
