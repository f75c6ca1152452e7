"""The matrix of a linear program as scipy.sparse, by rows carried back: sparse while they are, then dense.

Near their start rows have few entries: a unit of a convolution reads a window. They are multiplied by the
steps' own sparse matrices then, all rows at once. Deeper they fill; from there they are blocks of dense rows
under the steps' transposes, without any matrix. Wherever a block would outgrow its room it goes on in halves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NoReturn, TypeGuard

import numpy as np
from numpy.typing import DTypeLike
from scipy import sparse

from .arrays import Array
from .errors import MemoryLimitError
from .memory import readable
from .primitives import Primitive, flat
from .program import LinearProgram
from .transpose import tangent, transposed

_SPARSE = 1 / 16  # density up to which sparse products are faster than dense ones, about
_FEW = 64  # rows for which the making of sparse matrices does not pay
_ROOM = 2**22  # entries of a dense block; a quarter of those that a sparse product may make
_SAMPLE = 16  # rows that tell how large the matrix will be
_INDEX = 8  # bytes of a stored entry's index, at most

Block = sparse.csr_array | Array  # (B, elements of a tensor) or (B, *shape)


def matrix_of(program: LinearProgram, rows: Array, dtype: DTypeLike, limit: int) -> sparse.csr_array:
    """The (K, N) matrix of a program for chosen rows; entries that came out as 0 are not stored.

    Args:
        program: the network at x, or a part of it.
        rows: (K,) flat indices into the stacked, flattened outputs.
        dtype: floating type of the products.
        limit: bytes that the matrix, and what it is made of, may take.

    Raises:
        MemoryLimitError: it would take more.
    """
    linear = tangent(program)
    if len(rows) <= linear.in_size:
        return _Rows(linear, np.dtype(dtype), limit).of(rows)
    columns = _Rows(transposed(linear), np.dtype(dtype), limit).of(np.arange(linear.in_size))
    whole = columns.T.tocsr()
    return whole if np.array_equal(rows, np.arange(linear.out_size)) else whole[rows]


class _Rows:
    """Rows of a program without offsets, carried back from its outputs to its inputs."""

    def __init__(self, linear: LinearProgram, dtype: np.dtype[Any], limit: int) -> None:
        self.linear, self.dtype, self.limit = linear, dtype, limit
        self._matrices: dict[tuple[int, int], sparse.csr_array] = {}
        self._used = 0.0  # bytes of these and of the rows that are done
        self._few = True  # whether dense blocks are the way from the start

    def of(self, rows: Array) -> sparse.csr_array:
        """The matrix of the given rows, (K, N)."""
        if self._bytes(len(rows) * self.linear.in_size) > self.limit:
            self._sample(rows)
        self._few = len(rows) <= _FEW
        done: list[sparse.csr_array] = []
        for block in self._carried(rows):
            done.append(block)
            self._use(self._bytes(block.nnz))
        return done[0] if len(done) == 1 else sparse.vstack(done, format="csr")

    def _sample(self, rows: Array) -> None:
        """Refuse what a few rows say would take twice the room, before hours are spent on it."""
        few = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.intp)]
        entries = sum(block.nnz for block in self._carried(few)) / len(few)
        size = self._bytes(entries * len(rows))
        if size > 2 * self.limit:
            self._refuse(f"about {readable(size)}, more")

    def _carried(self, rows: Array) -> Iterator[sparse.csr_array]:
        return self._back(len(self.linear.steps), len(rows), self._seeds(rows))

    def _bytes(self, entries: float) -> float:
        """What so many entries take, three times over: blocks are put together, and columns transposed."""
        return 3 * entries * (self.dtype.itemsize + _INDEX)

    def _back(self, end: int, count: int, adjoints: dict[str, Block]) -> Iterator[sparse.csr_array]:
        """Carry a block of rows from behind step `end` - 1 to the inputs, in halves where it has no room.

        Args:
            end: number of steps still to come.
            count: B, the rows of the block.
            adjoints: the rows as functions of the tensors alive there.

        Yields:
            Blocks of consecutive rows, (B, N).
        """
        for position in range(end - 1, -1, -1):
            step = self.linear.steps[position]
            if step.output not in adjoints:
                continue
            if count > 1 and self._outgrows(adjoints[step.output], [L for _, L in step.terms]):
                for half in (range(count // 2), range(count // 2, count)):
                    part = {name: A[half.start : half.stop] for name, A in adjoints.items()}
                    yield from self._back(position + 1, len(half), part)
                return
            block = adjoints.pop(step.output)
            for index, (name, L) in enumerate(step.terms):
                product = self._product(block, L, (position, index))
                adjoints[name] = _sum(adjoints[name], product) if name in adjoints else product
        yield self._stacked(adjoints, count)

    def _product(self, block: Block, L: Primitive, key: tuple[int, int]) -> Block:
        """The block times L's matrix."""
        if not self._stays_sparse(block):
            return L.T.apply(_dense(block).reshape(block.shape[0], *L.out_shape))
        if key not in self._matrices:
            self._use(L.work * (self.dtype.itemsize + _INDEX))
            self._matrices[key] = L.matrix().astype(self.dtype, copy=False)
        product: sparse.csr_array = block @ self._matrices[key]
        return product

    def _stays_sparse(self, block: Block) -> TypeGuard[sparse.csr_array]:
        if self._few or isinstance(block, np.ndarray):
            return False
        return bool(block.nnz <= _SPARSE * np.prod(block.shape))

    def _outgrows(self, block: Block, maps: list[Primitive]) -> bool:
        """Whether the block's products under these maps, or one of them, would take too much room."""
        if self._stays_sparse(block):
            return any(block.nnz * (L.work / max(1, L.out_size)) > 4 * _ROOM for L in maps)
        return any(block.shape[0] * max(L.in_size, L.out_size) > _ROOM for L in maps)

    def _seeds(self, rows: Array) -> dict[str, Block]:
        """Unit rows, (K, elements) for each output."""
        found: dict[str, Block] = {}
        for name, shape, mine, entries in self.linear.by_output(rows):
            units = np.ones(len(mine), self.dtype), (mine, entries)
            seed = sparse.csr_array(units, shape=(len(rows), math.prod(shape)))
            found[name] = _sum(found[name], seed) if name in found else seed
        return found

    def _stacked(self, adjoints: dict[str, Block], count: int) -> sparse.csr_array:
        """Side by side in the order of the inputs, (B, N)."""
        parts = []
        for name, shape in self.linear.inputs:
            empty = sparse.csr_array((count, math.prod(shape)), dtype=self.dtype)
            part = adjoints.get(name, empty)
            parts.append(sparse.csr_array(flat(part)) if isinstance(part, np.ndarray) else part)
        whole = sparse.hstack(parts, format="csr", dtype=self.dtype) if len(parts) > 1 else parts[0]
        whole.eliminate_zeros()
        return whole

    def _use(self, size: float) -> None:
        self._used += size
        if self._used > self.limit:
            self._refuse("more")

    def _refuse(self, much: str) -> NoReturn:
        raise MemoryLimitError(
            f"this matrix would take {much} than the {readable(self.limit)} that it may; `operator` "
            "multiplies by it without making it, and memory_limit= admits more"
        )


def _sum(a: Block, b: Block) -> Block:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = _dense(a), _dense(b)
        return a + b.reshape(a.shape)
    return a + b


def _dense(block: Block) -> Array:
    return block if isinstance(block, np.ndarray) else block.toarray()
