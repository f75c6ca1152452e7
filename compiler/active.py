"""Blocks of rows that exist for active units only, and where each unit's row stands."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..runtime import kernels
from ..runtime.primitives import Array, Shape

Layout = tuple[int, int, int]  # (N, C, P): a flat tensor as N·P positions of C channels

_ALIGNMENT = 64  # bytes: a row's vectors then never straddle two lines of the cache


def layout_of(shape: Shape) -> Layout:
    """Channels along axis 1, positions along the others, as ONNX orders them."""
    if len(shape) < 2:
        return (1, math.prod(shape), 1)
    return (shape[0], shape[1], math.prod(shape[2:]))


@dataclass(frozen=True)
class Rows:
    """How K rows of W are laid out in a block: whole vectors, and a rest that strips compute."""

    K: int
    dtype: np.dtype[Any]
    vectors: int  # of each unit
    rest: int  # numbers behind them
    stride: int  # numbers from unit to unit

    @classmethod
    def of(cls, K: int, dtype: np.dtype[Any]) -> Rows:
        """Vectors for K rows; an even number of them is followed by a gap, lest all units meet in one set."""
        lanes = kernels.VECTOR_BYTES // dtype.itemsize
        rest = kernels.rest_of(dtype.itemsize, K)
        vectors, room = -(-(K - rest) // lanes), -(-K // lanes)
        gap = 1 if room > 3 and room % 2 == 0 else 0
        return cls(K, dtype, vectors, rest, (room + gap) * lanes if vectors else K)

    @property
    def used(self) -> int:
        """Numbers of each unit that are computed: K and what fills a last vector."""
        return max(self.K, self.vectors * int(kernels.VECTOR_BYTES) // self.dtype.itemsize)


def aligned(size: int) -> Array:
    """Bytes, not cleared, that begin where a line of the cache does."""
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size]


@dataclass
class Arena:
    """Buffers that blocks have given back: fresh memory would cost the system a fault for each page."""

    _free: list[Array] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int) -> Array:
        """A buffer of at least `size` bytes, not cleared."""
        with self._lock:
            fitting = [i for i, buffer in enumerate(self._free) if size <= buffer.nbytes <= 4 * size + 65536]
            if fitting:
                return self._free.pop(min(fitting, key=lambda i: self._free[i].nbytes))
        return aligned(size)

    def give(self, buffer: Array) -> None:
        """Keep a buffer for the next block."""
        with self._lock:
            self._free.append(buffer)

    @property
    def held(self) -> int:
        """Bytes of the buffers that are free now."""
        return sum(buffer.nbytes for buffer in self._free)


class Storage:
    """The numbers of a block, (units, stride); its buffer goes back to the arena with the last block."""

    __slots__ = ("_arena", "_buffer", "numbers")

    def __init__(self, arena: Arena, units: int, rows: Rows) -> None:
        size = units * rows.stride * rows.dtype.itemsize
        self._arena, self._buffer = arena, arena.take(size)
        self.numbers = self._buffer[:size].view(rows.dtype).reshape(units, rows.stride)

    def __del__(self) -> None:
        self._arena.give(self._buffer)


@dataclass(frozen=True)
class Units:
    """Units sorted by position and channel; position p holds those from start[p] to start[p + 1]."""

    layout: Layout
    start: Array  # (N·P + 1,)
    channel: Array  # (units,)
    row: Array  # (units,) where each unit's row stands in its block

    def __len__(self) -> int:
        return len(self.channel)


@dataclass
class Block:
    """The rows of a tensor: where each unit's row stands is known as a list or as a table, or both."""

    storage: Storage
    _units: Units | None = None
    _table: Array | None = None  # (size,) flat entry of the tensor → row, -1 for none

    def units(self, layout: Layout) -> Units:
        """The list for a layout of the tensor."""
        if self._units is None or self._units.layout != layout:
            self._units = Units(layout, *kernels.listed(self.table(), -1, *layout))
        return self._units

    def table(self) -> Array:
        """The table, flat."""
        if self._table is None:
            units = self._units
            assert units is not None
            self._table = kernels.placed(units.start, units.channel, units.row, *units.layout)
        return self._table

    def any_units(self, layout: Layout) -> Units:
        """The list that is there, whatever its layout, or one for `layout`."""
        return self._units or self.units(layout)

    def moved(self, table: Array) -> Block:
        """The same rows for the units of another tensor."""
        return Block(self.storage, None, table)

    @property
    def empty(self) -> bool:
        """Whether no unit is left."""
        return not len(self._units) if self._units is not None else not len(self.storage.numbers)
