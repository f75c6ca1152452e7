"""Sparse: an explicit matrix; and Chain: one primitive after another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape
from .base import Primitive, flat
from .move import Gather, Scatter
from .scale import Scale

if TYPE_CHECKING:
    from ..emit import Builder


@dataclass(frozen=True, eq=False)
class Sparse(Primitive):
    """y = M x over flattened tensors."""

    in_shape: Shape
    out_shape: Shape
    entries: sparse.csr_array  # (out_size, in_size)
    bound: sparse.csr_array | None = None  # on |entries|, where they are sums of parts that cancel

    def matrix(self) -> sparse.csr_array:
        """The matrix itself."""
        return self.entries

    def apply(self, block: Array) -> Array:
        """Multiply every tensor of the block."""
        entries = self.entries.astype(block.dtype, copy=False)
        product = (entries @ flat(block).T).T
        return np.ascontiguousarray(product).reshape(len(block), *self.out_shape)

    def emit(self, graph: Builder, x: str) -> str:
        """Gather the entries' columns, scale them, and add them up row by row."""
        listed = self.entries.tocoo()
        entries = Gather(self.in_shape, listed.col.astype(np.int64)).emit(graph, x)
        scaled = Scale((listed.nnz,), listed.data).emit(graph, entries)
        return Scatter(self.out_shape, listed.row.astype(np.int64)).emit(graph, scaled)

    @property
    def T(self) -> Primitive:
        """The transposed matrix."""
        bound = None if self.bound is None else sparse.csr_array(self.bound.T)
        return Sparse(self.out_shape, self.in_shape, sparse.csr_array(self.entries.T), bound)

    def magnitude(self) -> Primitive:
        """|M|, or the bound on it."""
        return self._magnitude

    @cached_property
    def _magnitude(self) -> Primitive:
        return Sparse(self.in_shape, self.out_shape, abs(self.entries) if self.bound is None else self.bound)

    def reach(self, mask: Array) -> Array:
        """Rows that meet a reached column."""
        pattern = sparse.csr_array(
            (np.ones(self.entries.nnz, np.float32), self.entries.indices, self.entries.indptr),
            shape=self.entries.shape,
        )
        return np.asarray(pattern @ mask.ravel().astype(np.float32) > 0).reshape(self.out_shape)

    @property
    def fan_in(self) -> int:
        """Entries of the fullest row."""
        return int(np.max(np.diff(self.entries.indptr), initial=0))

    @property
    def work(self) -> int:
        """Stored entries."""
        return int(self.entries.nnz)


@dataclass(frozen=True, eq=False)
class Chain(Primitive):
    """y = Lₙ … L₂ L₁ x; `parts` in the order of application, at least one."""

    parts: tuple[Primitive, ...]

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        """The first part's."""
        return self.parts[0].in_shape

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        """The last part's."""
        return self.parts[-1].out_shape

    def matrix(self) -> sparse.csr_array:
        """The product of the parts' matrices, in float64: float32 would round what is then taken as exact."""
        first, *rest = (part.matrix().astype(np.float64, copy=False) for part in self.parts)
        return reduce(lambda done, matrix: matrix @ done, rest, first)

    def apply(self, block: Array) -> Array:
        """Apply part after part."""
        return reduce(lambda done, part: part.apply(done), self.parts, block)

    def emit(self, graph: Builder, x: str) -> str:
        """Part after part."""
        return reduce(lambda done, part: part.emit(graph, done), self.parts, x)

    @property
    def T(self) -> Primitive:
        """(L₂ L₁)ᵀ = L₁ᵀ L₂ᵀ."""
        return Chain(tuple(part.T for part in reversed(self.parts)))

    def magnitude(self) -> Primitive:
        """|Lₙ| … |L₁|, which bounds |Lₙ … L₁|."""
        return self._magnitude

    @cached_property
    def _magnitude(self) -> Primitive:
        return Chain(tuple(part.magnitude() for part in self.parts))

    def size_bound(self, size: Array) -> Array:
        """Part after part."""
        return reduce(lambda done, part: part.size_bound(done), self.parts, size)

    def reach(self, mask: Array) -> Array:
        """Part after part."""
        return reduce(lambda done, part: part.reach(done), self.parts, mask)

    @property
    def fan_in(self) -> int:
        """Roundings of the parts add up to first order."""
        return sum(part.fan_in for part in self.parts)

    @property
    def work(self) -> int:
        """All parts' work."""
        return sum(part.work for part in self.parts)


def chain(*parts: Primitive) -> Primitive:
    """One primitive for several applied in turn."""
    return parts[0] if len(parts) == 1 else Chain(parts)
