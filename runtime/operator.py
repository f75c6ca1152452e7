"""W as a linear operator: W v by one sweep of tangents forward, Wᵀ u by one of adjoints back, W never made.

For maps whose W does not fit: products, least squares (`scipy.sparse.linalg.lsqr`), leading singular
vectors (`svds`) and anything else that only multiplies by W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse.linalg import LinearOperator

from .arrays import Array
from .primitives import flat
from .program import LinearProgram
from .transpose import tangent, transposed

Carry = Callable[[Array], Array]  # (B, stacked inputs of a program) to (B, its stacked outputs)
Carrier = Callable[[LinearProgram], Carry]


class ProgramOperator(LinearOperator):
    """The (K, N) matrix W of a linear program for chosen rows, known by its products only.

    Vectors are flattened, stacked inputs (N,) and the chosen outputs (K,), as in `AffineMap`. They are
    cast to the operator's dtype, which is that of the results too.
    """

    def __init__(
        self, program: LinearProgram, rows: Array, dtype: DTypeLike, carrier: Carrier, at_once: int
    ) -> None:
        """Prepare the operator; `operator_of` is the usual way.

        Args:
            program: the network at x.
            rows: (K,) flat indices into the stacked, flattened outputs; one may come twice.
            dtype: floating type of all products.
            carrier: makes a sweep of a program without offsets.
            at_once: B, the vectors that one sweep carries at most.
        """
        super().__init__(np.dtype(dtype), (len(rows), program.in_size))  # type: ignore[call-arg]
        self.rows = rows
        self._linear, self._carrier, self._at_once = tangent(program), carrier, at_once
        self._forward, self._back = carrier(self._linear), carrier(transposed(self._linear))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as the program that it is made of, as sessions cannot travel."""
        return ProgramOperator, (self._linear, self.rows, self.dtype, self._carrier, self._at_once)

    def in_dtype(self, dtype: DTypeLike) -> ProgramOperator:
        """The same operator in another floating type, by numpy's sweeps."""
        return ProgramOperator(self._linear, self.rows, dtype, carried, self._at_once)

    def _matmat(self, V: Array) -> Array:
        """W V, (N, B) to (K, B), block by block of columns."""
        product = np.empty((self.shape[0], V.shape[1]), self.dtype)
        for part in self._blocks(V.shape[1]):
            product[:, part] = self._forward(self._cast(V[:, part].T))[:, self.rows].T
        return product

    def _rmatmat(self, U: Array) -> Array:
        """Wᵀ U, (K, B) to (N, B)."""
        product = np.empty((self.shape[1], U.shape[1]), self.dtype)
        for part in self._blocks(U.shape[1]):
            adjoints = np.zeros((self._linear.out_size, len(range(*part.indices(U.shape[1])))), self.dtype)
            np.add.at(adjoints, self.rows, self._cast(U[:, part]))
            product[:, part] = self._back(np.ascontiguousarray(adjoints.T)).T
        return product

    def _matvec(self, v: Array) -> Array:
        return self._matmat(v.reshape(-1, 1))

    def _rmatvec(self, u: Array) -> Array:
        return self._rmatmat(u.reshape(-1, 1))

    def _blocks(self, columns: int) -> list[slice]:
        return [slice(first, first + self._at_once) for first in range(0, columns, self._at_once)]

    def _cast(self, block: Array) -> Array:
        """In the operator's type; a TypeError for complex numbers, of which a cast would lose half."""
        return np.ascontiguousarray(block.astype(self.dtype, casting="same_kind", copy=False))


def operator_of(
    program: LinearProgram,
    rows: Array,
    dtype: DTypeLike,
    *,
    carrier: Carrier | None = None,
    at_once: int = 1,
) -> ProgramOperator:
    """W of a program for the given rows, as a linear operator.

    Args:
        program: the network at x.
        rows: (K,) flat indices into the stacked, flattened outputs.
        dtype: floating type of all products.
        carrier: makes a sweep of a program without offsets; by default `carried`, which is numpy's.
        at_once: vectors that one sweep carries, where a product has several.
    """
    return ProgramOperator(program, rows, dtype, carrier or carried, at_once)


def bias_of(program: LinearProgram, rows: Array, dtype: DTypeLike) -> Array:
    """The offset b of the given rows, (K,), without W: the affine map at zero, one sweep of the offsets."""
    zero = {name: np.zeros((1, *shape), dtype) for name, shape in program.inputs}
    b: Array = walked(program, zero, weight=1.0)[0, rows]
    return b


def carried(program: LinearProgram) -> Carry:
    """The sweep of a program without offsets, by numpy."""

    def carry(block: Array) -> Array:
        return walked(program, unstacked(program, block), weight=0.0)

    return carry


def unstacked(program: LinearProgram, block: Array) -> dict[str, Array]:
    """(B, stacked inputs) to input name to (B, *shape)."""
    sizes = [math.prod(shape) for _, shape in program.inputs]
    parts = np.split(block, np.cumsum(sizes)[:-1], axis=1)
    return {
        name: part.reshape(len(block), *shape)
        for (name, shape), part in zip(program.inputs, parts, strict=True)
    }


def walked(program: LinearProgram, values: dict[str, Array], weight: float) -> Array:
    """Run a program on a block and stack its outputs, (B, all outputs).

    Args:
        program: the network at x.
        values: input name to (B, *shape).
        weight: of the offsets: 1 for points, 0 for directions.
    """
    count = len(next(iter(values.values())))
    if not program.outputs:
        return np.zeros((count, 0))
    alive: Mapping[str, Array] = values
    for _, now in program.walk(values, [weight] * count):
        alive = now
    return np.concatenate([flat(alive[name]) for name, _ in program.outputs], axis=1)
