"""Maps that move entries without arithmetic: Reshape, Transpose, Gather, and Gather's transpose Scatter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape
from .base import Primitive, flat

if TYPE_CHECKING:
    from ..emit import Builder


@dataclass(frozen=True, eq=False)
class Reshape(Primitive):
    """y = x in another shape: the identity matrix."""

    in_shape: Shape
    out_shape: Shape

    def __post_init__(self) -> None:
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise ValueError(f"{self.in_shape} and {self.out_shape} differ in size")

    def matrix(self) -> sparse.csr_array:
        """The identity."""
        return sparse.eye_array(self.in_size, dtype=np.float32, format="csr")

    def apply(self, block: Array) -> Array:
        """View the block in the other shape."""
        return block.reshape(len(block), *self.out_shape)

    def emit(self, graph: Builder, x: str) -> str:
        """One Reshape."""
        return graph.reshape(x, self.out_shape)

    @property
    def T(self) -> Primitive:
        """The way back."""
        return Reshape(self.out_shape, self.in_shape)

    def reach(self, mask: Array) -> Array:
        """The same entries."""
        return mask.reshape(self.out_shape)


@dataclass(frozen=True, eq=False)
class Transpose(Primitive):
    """y = x with its axes in the order `axes`: a permutation matrix."""

    in_shape: Shape
    axes: tuple[int, ...]

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        """The permuted shape."""
        return tuple(self.in_shape[axis] for axis in self.axes)

    def matrix(self) -> sparse.csr_array:
        """A permutation matrix."""
        return Gather(self.in_shape, self.reach(np.arange(self.in_size).reshape(self.in_shape))).matrix()

    def apply(self, block: Array) -> Array:
        """Permute the axes behind the block axis."""
        return block.transpose(0, *(axis + 1 for axis in self.axes))

    def emit(self, graph: Builder, x: str) -> str:
        """One Transpose."""
        return graph.node("Transpose", x, perm=[0, *(axis + 1 for axis in self.axes)])

    @property
    def T(self) -> Primitive:
        """The inverse permutation."""
        return Transpose(self.out_shape, tuple(int(axis) for axis in np.argsort(self.axes)))

    def reach(self, mask: Array) -> Array:
        """The same entries."""
        return mask.transpose(self.axes)


@dataclass(frozen=True, eq=False)
class Gather(Primitive):
    """y[o] = x.flat[index[o]], and 0 where index[o] = -1: at most a single one in each row.

    The one primitive behind slicing, padding, concatenation, tiling and pooling winners: an operator
    that only moves entries is described by what it does to an array of flat positions.
    """

    in_shape: Shape
    index: Array  # out_shape, integer positions in the flattened input; -1 for "nothing"

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        """The shape of the index."""
        return self.index.shape

    @cached_property
    def _has_gaps(self) -> bool:
        return bool(self.index.size) and bool(self.index.min() < 0)

    def matrix(self) -> sparse.csr_array:
        """Row o has a one in column index[o]."""
        sources = self.index.ravel()
        kept = sources >= 0
        indptr = np.concatenate([[0], np.cumsum(kept)])
        ones = np.ones(int(indptr[-1]), np.float32)
        return sparse.csr_array((ones, sources[kept], indptr), shape=(self.out_size, self.in_size))

    def apply(self, block: Array) -> Array:
        """Take the entries of every tensor of the block."""
        if not self.in_size:
            return np.zeros((len(block), *self.out_shape), block.dtype)
        taken = flat(block)[:, self.index]
        if self._has_gaps:
            taken[:, self.index < 0] = 0
        return taken  # (B, *out_shape)

    def emit(self, graph: Builder, x: str) -> str:
        """Gather from the flattened block; position -1 reads a zero that is put behind it."""
        padded = graph.node("Pad", graph.reshape(x, [self.in_size]), graph.constant([0, 0, 0, 1]))
        index = np.where(self.index < 0, self.in_size, self.index)
        return graph.node("Gather", padded, graph.array(index), axis=1)

    @property
    def T(self) -> Primitive:
        """Add entries back where they came from."""
        return Scatter(self.in_shape, self.index)

    def reach(self, mask: Array) -> Array:
        """Where an output's only source is reached."""
        if not self.in_size:
            return np.zeros(self.out_shape, bool)
        return mask.ravel()[self.index] & (self.index >= 0)


@dataclass(frozen=True, eq=False)
class Scatter(Primitive):
    """x.flat[index[o]] += y[o]: the transpose of Gather."""

    out_shape: Shape
    index: Array  # in_shape

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        """The shape of the index."""
        return self.index.shape

    @cached_property
    def _sums(self) -> sparse.csr_array | None:
        """The matrix where several entries meet in one place; None where each has its own."""
        targets = self.index.ravel()
        hits = np.bincount(targets[targets >= 0], minlength=1)
        return self.matrix() if np.max(hits, initial=0) > 1 else None

    def matrix(self) -> sparse.csr_array:
        """The transpose of Gather's matrix."""
        return sparse.csr_array(Gather(self.out_shape, self.index).matrix().T)

    def apply(self, block: Array) -> Array:
        """Add every tensor's entries into place."""
        if self._sums is not None:
            summed = (self._sums.astype(block.dtype, copy=False) @ flat(block).T).T
            return np.ascontiguousarray(summed).reshape(len(block), *self.out_shape)
        placed = np.zeros((len(block), self.out_size), block.dtype)
        kept = self.index.ravel() >= 0
        placed[:, self.index.ravel()[kept]] = flat(block)[:, kept]
        return placed.reshape(len(block), *self.out_shape)

    def emit(self, graph: Builder, x: str) -> str:
        """ScatterND with the batch axis last, so that one index serves all rows of the block.

        Entries that go nowhere (position -1) are added to a place behind the others, which is cut off.
        """
        rows = graph.node("Transpose", graph.reshape(x, [self.in_size]), perm=[1, 0])  # (in_size, B)
        count = graph.node("Shape", rows, start=1, end=2)
        shape = graph.node("Concat", graph.constant([self.out_size + 1]), count, axis=0)
        zeros = graph.node("Expand", graph.constant(np.zeros((1, 1), graph.dtype)), shape)
        index = np.where(self.index < 0, self.out_size, self.index).reshape(-1, 1)
        placed = graph.node("ScatterND", zeros, graph.array(index), rows, reduction="add")
        ends = [graph.constant([bound]) for bound in (0, self.out_size, 0)]
        kept = graph.node("Transpose", graph.node("Slice", placed, *ends), perm=[1, 0])
        return graph.reshape(kept, self.out_shape)

    @property
    def T(self) -> Primitive:
        """The Gather that this transposes."""
        return Gather(self.out_shape, self.index)

    def reach(self, mask: Array) -> Array:
        """Everywhere that a reached entry is added."""
        reached = np.zeros(self.out_size, bool)
        targets = self.index[mask]
        reached[targets[targets >= 0]] = True
        return reached.reshape(self.out_shape)

    @property
    def fan_in(self) -> int:
        """The largest number of entries that meet in one place."""
        return 0 if self._sums is None else int(np.max(np.diff(self._sums.indptr), initial=0))

    @property
    def work(self) -> int:
        """One addition for each entry."""
        return self.in_size
