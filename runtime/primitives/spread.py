"""Broadcast: one entry copied along new or length-1 axes; and its transpose Sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape
from .base import Primitive
from .move import Gather

if TYPE_CHECKING:
    from ..emit import Builder


def _summed_axes(small: Shape, large: Shape) -> tuple[int, ...]:
    """Axes of `large` along which numpy's broadcasting copies `small`."""
    lead = len(large) - len(small)
    return tuple(
        axis for axis in range(len(large)) if axis < lead or (small[axis - lead] == 1 != large[axis])
    )


@dataclass(frozen=True, eq=False)
class Broadcast(Primitive):
    """y = x copied to a larger shape by numpy's rules."""

    in_shape: Shape
    out_shape: Shape

    def matrix(self) -> sparse.csr_array:
        """A single 1 in each row."""
        return Gather(self.in_shape, self.reach(np.arange(self.in_size).reshape(self.in_shape))).matrix()

    def apply(self, block: Array) -> Array:
        """Copy every tensor of the block (a read-only view)."""
        lead = len(self.out_shape) - len(self.in_shape)
        aligned = block.reshape(len(block), *(1,) * lead, *self.in_shape)
        return np.broadcast_to(aligned, (len(block), *self.out_shape))

    def emit(self, graph: Builder, x: str) -> str:
        """Reshape to the aligned rank, then Expand."""
        lead = (1,) * (len(self.out_shape) - len(self.in_shape))
        aligned = graph.reshape(x, (*lead, *self.in_shape))
        spread = graph.node("Expand", aligned, graph.constant([1, *self.out_shape]))
        return graph.shaped(spread, self.out_shape)

    @property
    def T(self) -> Primitive:
        """Sum over the copies."""
        return Sum(self.out_shape, self.in_shape)

    def reach(self, mask: Array) -> Array:
        """Copies of reached entries."""
        return np.broadcast_to(mask, self.out_shape)


@dataclass(frozen=True, eq=False)
class Sum(Primitive):
    """y = x summed over the axes that broadcasting `out_shape` to `in_shape` would copy along."""

    in_shape: Shape
    out_shape: Shape

    def matrix(self) -> sparse.csr_array:
        """The transpose of Broadcast's matrix."""
        return sparse.csr_array(Broadcast(self.out_shape, self.in_shape).matrix().T)

    def apply(self, block: Array) -> Array:
        """Sum every tensor of the block."""
        axes = tuple(axis + 1 for axis in _summed_axes(self.out_shape, self.in_shape))
        return np.asarray(block.sum(axis=axes)).reshape(len(block), *self.out_shape)

    def emit(self, graph: Builder, x: str) -> str:
        """One ReduceSum."""
        block, own = graph.bare(x, self.in_shape)
        lead = len(self.in_shape) - len(own)
        summed = [axis - lead for axis in _summed_axes(self.out_shape, self.in_shape) if axis >= lead]
        if not summed:
            return graph.reshape(x, self.out_shape)
        axes = [axis + 1 for axis in summed]
        total = graph.node("ReduceSum", block, graph.constant(axes), keepdims=0)
        left = tuple(size for axis, size in enumerate(own) if axis not in summed)
        return graph.reshape(graph.shaped(total, left), self.out_shape)

    @property
    def T(self) -> Primitive:
        """Copy back."""
        return Broadcast(self.out_shape, self.in_shape)

    def reach(self, mask: Array) -> Array:
        """Sums with a reached term."""
        met = np.any(mask, axis=_summed_axes(self.out_shape, self.in_shape))
        return np.asarray(met).reshape(self.out_shape)

    @property
    def fan_in(self) -> int:
        """Entries in one sum."""
        return self.in_size // self.out_size if self.out_size else 0

    @property
    def work(self) -> int:
        """One addition for each entry."""
        return self.in_size
