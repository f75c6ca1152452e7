"""Maps that move entries without arithmetic: Reshape, Transpose, Gather, and Gather's transpose Scatter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape
from .base import Primitive, flat
from .window import Window

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
        """One Transpose, or none where only axes of length 1 change places."""
        moved = [axis for axis in self.axes if self.in_shape[axis] != 1]
        if moved == sorted(moved):
            return graph.reshape(x, self.out_shape)
        block = graph.reshape(x, self.in_shape)
        put = graph.node("Transpose", block, perm=[0, *(axis + 1 for axis in self.axes)])
        return graph.shaped(put, self.out_shape)

    @property
    def T(self) -> Primitive:
        """The inverse permutation."""
        return Transpose(self.out_shape, tuple(int(axis) for axis in np.argsort(self.axes)))

    def reach(self, mask: Array) -> Array:
        """The same entries."""
        return mask.transpose(self.axes)


@dataclass(frozen=True, eq=False)
class Gather(Primitive):
    """y[o] = x.flat[index[o]], and 0 where index[o] = -1: at most a single 1 in each row.

    The one primitive behind slicing, padding, concatenation, tiling and pooling winners: an operator
    that only moves entries is described by what it does to an array of flat positions.
    """

    in_shape: Shape
    index: Array  # out_shape, integer positions in the flattened input; -1 for "nothing"
    window: Window | None = None  # where each entry is taken from its window in every image of every channel

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        """The shape of the index."""
        return self.index.shape

    @cached_property
    def _has_gaps(self) -> bool:
        return bool(self.index.size) and bool(self.index.min() < 0)

    def matrix(self) -> sparse.csr_array:
        """Row o has a 1 in column index[o]."""
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
        """Slice or Pad where the index is that at every point; else Gather from the flattened block."""
        if graph.fixed and self.in_size and self.out_size:
            box = _box(self.index, self.in_shape)
            if box is not None and self.in_shape == self.out_shape:
                return graph.reshape(x, self.out_shape)
            if box is not None:
                return _sliced(graph, graph.reshape(x, self.in_shape), box, self.out_shape)
            back = _inverse(self.index, self.in_shape)
            box = None if back is None else _box(back, self.out_shape)
            if box is not None and set(box.steps) == {1}:
                return _padded(graph, graph.reshape(x, self.in_shape), box, self.out_shape)
        entries = graph.reshape(x, [self.in_size])
        if self._has_gaps or not self.in_size:  # position -1 reads a zero that is put behind the others
            entries = graph.node("Pad", entries, graph.constant([0, 0, 0, 1]))
        index = np.where(self.index < 0, self.in_size, self.index)
        return graph.shaped(
            graph.node("Gather", entries, graph.array(index, "winner"), axis=1), self.out_shape
        )

    def structure(self) -> tuple[Any, ...]:
        """Whether there are gaps counts too."""
        return (*super().structure(), self._has_gaps)

    @property
    def T(self) -> Primitive:
        """Add entries back where they came from."""
        return Scatter(self.in_shape, self.index, self.window)

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
    window: Window | None = None  # as in Gather

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
        """One of three forms.

        Where no two entries meet, at every point alike: the inverse Gather. For the winners of windows that
        do not overlap: each entry copied to its whole window, times a mask. Else ScatterElements.
        """
        back = _inverse(self.index, self.out_shape) if graph.fixed else None
        if back is not None:
            return Gather(self.in_shape, back).emit(graph, x)
        if self.window is not None and self.window.tiles and not self._has_gaps:
            return self._emit_tiles(graph, x, self.window)
        return self._emit_scatter(graph, x)

    def _emit_tiles(self, graph: Builder, x: str, window: Window) -> str:
        """Every window filled with its entry, zeros but at the winner."""
        entries = graph.reshape(x, self.in_shape[1:])  # (images, channels, *out)
        scales = graph.constant(np.array([1, 1, *window.kernel], np.float32))
        block = graph.node(
            "Resize",
            *(entries, "", scales),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        filled = [o * k for o, k in zip(window.out_size, window.kernel, strict=True)]
        rest = [i - f for i, f in zip(window.in_size, filled, strict=True)]
        if any(rest):
            block = graph.node("Pad", block, graph.constant([0] * (4 + len(rest)) + rest))
        block = graph.reshape(graph.shaped(block, self.out_shape[1:]), self.out_shape)
        winner = graph.array(self.index, "winner")
        mask = graph.node(
            "ScatterElements",
            graph.constant(np.zeros(self.out_size, graph.dtype)),
            graph.node("Reshape", winner, graph.constant([-1])),
            graph.constant(np.ones(self.in_size, graph.dtype)),
            axis=0,
        )
        bare, own = graph.bare(block, self.out_shape)
        mask = graph.node("Reshape", mask, graph.constant(list(own)))
        return graph.reshape(graph.shaped(graph.scaled(bare, mask), own), self.out_shape)

    def _emit_scatter(self, graph: Builder, x: str) -> str:
        """ScatterElements along the flattened block, with one index for all rows.

        Not ScatterND: onnxruntime runs that in several threads, which lose sums where entries meet. Entries
        that go nowhere (position -1) are added to a place behind the others, which is cut off.
        """
        size = self.out_size + self._has_gaps
        rows = graph.reshape(x, [self.in_size])  # (B, in_size)
        shape = graph.node("Shape", rows)
        count = graph.node("Shape", rows, start=0, end=1)
        room = graph.node("Concat", count, graph.constant([size]), axis=0)
        zeros = graph.node("Expand", graph.constant(np.zeros((1, 1), graph.dtype)), room)
        index = graph.array(np.where(self.index < 0, self.out_size, self.index), "winner")
        narrow = np.int32 if size < np.iinfo(np.int32).max else np.int64
        index = graph.cast(graph.node("Reshape", index, graph.constant([1, -1])), narrow)
        index = graph.node("Expand", index, shape)
        placed = graph.node("ScatterElements", zeros, index, rows, axis=1, reduction="add")
        if self._has_gaps:
            ends = [graph.constant([bound]) for bound in (0, self.out_size, 1)]
            placed = graph.node("Slice", placed, *ends)
        return graph.reshape(graph.shaped(placed, (self.out_size,)), self.out_shape)

    @cached_property
    def _has_gaps(self) -> bool:
        return bool(self.index.size) and bool(self.index.min() < 0)

    def structure(self) -> tuple[Any, ...]:
        """Whether there are gaps counts too."""
        return (*super().structure(), self._has_gaps)

    @property
    def T(self) -> Primitive:
        """The Gather that this transposes."""
        return Gather(self.out_shape, self.index, self.window)

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


class _Box(NamedTuple):
    """A rectangular cut: start, step and length on every axis."""

    starts: Shape
    steps: Shape
    sizes: Shape

    def inside(self, shape: Shape) -> Array:
        """Flat positions of the cut, in an array of the given shape."""
        position = np.zeros((), np.int64)
        axes = zip(shape, self.starts, self.steps, self.sizes, strict=True)
        for length, start, step, size in axes:
            position = position[..., None] * length + (start + step * np.arange(size))
        return position


def _box(index: Array, shape: Shape) -> _Box | None:
    """The cut of an array of the given shape whose flat positions the index holds; None if it is none."""
    if index.ndim != len(shape) or index.min() < 0:
        return None
    origin = (0,) * index.ndim
    starts = tuple(int(p) for p in np.unravel_index(index[origin], shape))
    steps = []
    for axis, size in enumerate(index.shape):
        second = tuple(int(a == axis) for a in range(index.ndim))
        ahead = int(np.unravel_index(index[second], shape)[axis]) if size > 1 else starts[axis] + 1
        steps.append(ahead - starts[axis])
    box = _Box(starts, tuple(steps), index.shape)
    return box if min(steps, default=1) > 0 and np.array_equal(box.inside(shape), index) else None


def _inverse(index: Array, shape: Shape) -> Array | None:
    """Where in the index each flat position of `shape` stands, -1 for nowhere; None if any stands twice."""
    targets = index.ravel()
    kept = np.flatnonzero(targets >= 0)
    back = np.full(math.prod(shape), -1, np.int64)
    back[targets[kept]] = kept
    return back.reshape(shape) if np.array_equal(back[targets[kept]], kept) else None


def _sliced(graph: Builder, x: str, box: _Box, shape: Shape) -> str:
    """The block within the box."""
    ends = [s + (n - 1) * step + 1 for s, step, n in zip(*box, strict=True)]
    cut = [graph.constant(list(bound)) for bound in (box.starts, ends, range(1, 1 + len(shape)), box.steps)]
    return graph.shaped(graph.node("Slice", x, *cut), shape) if shape else x


def _padded(graph: Builder, x: str, box: _Box, shape: Shape) -> str:
    """The block put into zeros of the given shape, where the box is."""
    after = [length - start - size for length, start, size in zip(shape, box.starts, box.sizes, strict=True)]
    pads = graph.constant([0, *box.starts, 0, *after])
    return graph.shaped(graph.node("Pad", x, pads), shape) if shape else x
