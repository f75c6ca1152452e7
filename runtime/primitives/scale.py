"""Scale: y = d ⊙ x — a diagonal matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape
from .base import Primitive

if TYPE_CHECKING:
    from ..emit import Builder


@dataclass(frozen=True, eq=False)
class Scale(Primitive):
    """y = factor ⊙ x, the factor broadcast to the tensor's shape. Its own transpose."""

    in_shape: Shape
    factor: Array  # broadcastable to in_shape; bool or floating point

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        """The input's shape."""
        return self.in_shape

    def matrix(self) -> sparse.csr_array:
        """diag(factor), without the entries that are zero."""
        diagonal = np.broadcast_to(self.factor, self.in_shape).ravel()
        if diagonal.dtype == bool:
            diagonal = diagonal.astype(np.float32)
        kept = np.flatnonzero(diagonal)
        indptr = np.concatenate([[0], np.cumsum(diagonal != 0)])
        return sparse.csr_array((diagonal[kept], kept, indptr), shape=(self.out_size, self.in_size))

    def apply(self, block: Array) -> Array:
        """Multiply every tensor of the block."""
        factor = self.factor if self.factor.dtype == bool else self.factor.astype(block.dtype, copy=False)
        return np.multiply(block, factor, dtype=block.dtype)

    def emit(self, graph: Builder, x: str) -> str:
        """One Mul; the factor aligns with the trailing axes."""
        block, own = graph.bare(x, self.in_shape)
        if self.factor.ndim > len(own) + 1:  # the block's own first axis stands for one axis of length 1
            block, own = graph.reshape(x, self.in_shape), self.in_shape
        product = graph.scaled(block, graph.array(self.factor, "slope"))
        return graph.reshape(graph.shaped(product, own), self.in_shape)

    @property
    def T(self) -> Primitive:
        """A diagonal matrix is symmetric."""
        return self

    def magnitude(self) -> Primitive:
        """diag(|factor|)."""
        return self if self.factor.dtype == bool else Scale(self.in_shape, np.abs(self.factor))

    def reach(self, mask: Array) -> Array:
        """Zeros of the factor stop the dependence."""
        return np.asarray(np.logical_and(mask, self.factor))

    @property
    def fan_in(self) -> int:
        """One product, or none where the factor only selects."""
        return 0 if self.factor.dtype == bool else 1
