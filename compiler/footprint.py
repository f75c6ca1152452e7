"""How much memory a stage takes at its peak, told from the program before anything is computed.

A sweep is walked through on paper: which tensors are alive at each step, which results are only views of
others, and what a primitive's `apply` allocates while it works. Bytes, of arrays only; sessions and the
interpreter come on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from ..runtime.primitives import (
    Broadcast,
    Chain,
    Contract,
    Conv,
    ConvTranspose,
    Gather,
    Primitive,
    Reshape,
    Scale,
    Scatter,
    Sparse,
    Sum,
)
from ..runtime.primitives.conv import CACHED
from ..runtime.program import LinearProgram, Step
from ..runtime.transpose import transposed

_INDEX = 8  # bytes of a position


@dataclass(frozen=True)
class Need:
    """What applying a primitive to a block allocates, in bytes."""

    result: int  # none where the result is a view of the block
    scratch: int  # at the peak, beside the block and the result


def need(L: Primitive, k: int, itemsize: int) -> Need:
    """What `L.apply` allocates for a block of k tensors."""
    x, y = k * L.in_size * itemsize, k * L.out_size * itemsize
    match L:
        case Reshape() | Broadcast():
            return Need(0, 0)
        case Scale() | Sum():
            return Need(y, 0)
        case Gather():
            gaps = int(np.count_nonzero(L.index < 0))
            return Need(y, y + bool(gaps) * (L.out_size + _INDEX * L.index.ndim * gaps))
        case Scatter():
            return Need(y, x + _scatter_scratch(L, y))
        case Contract():
            return Need(y, x + y)
        case Conv():
            return Need(y, _conv_scratch(L, k, itemsize))
        case ConvTranspose():
            written = k * L.batch * L.group * int(L.weight.shape[1]) * math.prod(L.window.out_size) * itemsize
            taps = 1 if math.prod(L.window.kernel) == 1 else 2  # one tap's product is held during the next
            return Need(y, taps * written + (0 if L.weight.shape[0] == L.group else x))
        case Sparse():
            return Need(y, x + y + L.entries.nnz * itemsize)
        case Chain():
            return _chained(L.parts, k, itemsize)
        case _:  # Transpose among them: a view, but most of what comes next has to copy it
            return Need(y, 0)


def _conv_scratch(L: Conv, k: int, itemsize: int) -> int:
    """What the window reads as columns, and their product, as much as fits the cache; the padded images."""
    window, (M, channels) = L.window, L.weight.shape[:2]
    if channels == M // L.group == 1:  # tap by tap, read in place
        return k * L.out_size * itemsize
    height, *rest = window.out_size or (1,)
    per_row = L.group * channels * math.prod(window.kernel) * math.prod(rest) * itemsize
    rows = max(1, CACHED // max(1, per_row))
    images = min(k * L.batch, max(1, rows // max(1, height)))
    height = min(height, rows) if images == 1 else height
    columns = images * height * per_row
    product = images * height * math.prod(rest) * int(M) * itemsize
    extents = (
        (o - 1) * s + (kernel - 1) * d + 1 for _, o, kernel, s, d, _ in zip(*window.fields(), strict=True)
    )
    padded = images * L.group * channels * math.prod(extents) * itemsize
    once = images == k * L.batch and height == (window.out_size or (1,))[0]
    return int(columns + product + padded + (0 if once else max(columns, product)))  # the last are still held


def _scatter_scratch(L: Scatter, y: int) -> int:
    """Positions are counted; where entries meet, a matrix is built and multiplied by."""
    targets = L.index.ravel()
    meet = np.max(np.bincount(targets[targets >= 0], minlength=1), initial=0) > 1
    positions = _INDEX * (L.in_size + L.out_size)
    return y + 4 * _INDEX * L.in_size + positions if meet else positions


def _chained(parts: Iterable[Primitive], k: int, itemsize: int) -> Need:
    held = peak = 0
    for part in parts:
        one = need(part, k, itemsize)
        peak = max(peak, held + one.result + one.scratch)
        held = one.result or held
    return Need(held, peak - held)


@dataclass
class _Memory:
    """Arrays that are alive, by the tensors that look at them."""

    sizes: dict[int, int] = field(default_factory=dict)  # array to bytes
    seen_by: dict[str, int] = field(default_factory=dict)  # tensor to array
    peak: int = 0

    @property
    def alive(self) -> int:
        return sum(self.sizes[array] for array in set(self.seen_by.values()))

    def own(self, name: str, size: int) -> None:
        array = len(self.sizes)
        self.sizes[array] = size
        self.seen_by[name] = array

    def reach(self, extra: int) -> None:
        self.peak = max(self.peak, self.alive + extra)


Beside = Callable[[Step], int]


def walk_bytes(program: LinearProgram, k: int, dtype: DTypeLike, beside: Beside = lambda step: 0) -> int:
    """Peak of a walk over a program with a block of k.

    Args:
        program: any program.
        k: vectors in the block.
        dtype: their floating type.
        beside: bytes that the walker takes for itself while it looks at a step's result.
    """
    itemsize = np.dtype(dtype).itemsize
    memory = _Memory()
    for name, shape in program.inputs:
        memory.own(name, k * math.prod(shape) * itemsize)
    last, given = program.last_uses(), dict(program.inputs)
    for position, step in enumerate(program.steps):
        _step(memory, step, k, itemsize)
        memory.reach(beside(step))
        for name in last.get(position, ()):
            if name not in given:  # whoever gave the inputs still holds them
                memory.seen_by.pop(name, None)
    memory.reach(k * program.out_size * itemsize)  # outputs stacked
    return memory.peak


def _step(memory: _Memory, step: Step, k: int, itemsize: int) -> None:
    """Evaluate a step on paper, as `Step.apply` does."""
    size = k * step.size * itemsize
    held, view = 0, None  # what the sum so far has allocated, or which tensor it is a view of
    for index, (name, L) in enumerate(step.terms):
        one = need(L, k, itemsize)
        memory.reach(held + one.result + one.scratch)
        if index == 0:
            held, view = one.result, name
        else:
            memory.reach(held + one.result + size)
            held = size
    if step.offset is not None:
        memory.reach(held + 2 * size)
        held = size
    if held or view is None:
        memory.own(step.output, held or size)
    else:
        memory.seen_by[step.output] = memory.seen_by[view]
    memory.reach(0)


def sweep_bytes(program: LinearProgram, k: int, dtype: DTypeLike, points: int = 3) -> int:
    """Peak of a reverse sweep of k rows with numpy.

    Beside each block stand its absolute values and the errors at a few points, for the rounding bound, and
    the step's offset in full. An eighth more is for the last parts that the loop's variables still hold.
    """
    itemsize = np.dtype(dtype).itemsize
    offsets = {step.output for step in program.steps if step.offset is not None}

    def beside(step: Step) -> int:
        return (k + max(points, 2 * (step.output in offsets))) * step.size * itemsize

    return walk_bytes(transposed(program), k, dtype, beside) * 9 // 8


def rows_that_fit(program: LinearProgram, most: int, dtype: DTypeLike, budget: int) -> int:
    """How many rows one reverse sweep may take within a budget of bytes: from 1, which is always tried."""
    if most <= 1 or sweep_bytes(program, most, dtype) <= budget:
        return max(1, most)
    fits, over = 1, most
    while over - fits > 1:
        middle = (fits + over) // 2
        if sweep_bytes(program, middle, dtype) <= budget:
            fits = middle
        else:
            over = middle
    return fits


def bounds_bytes(program: LinearProgram, points: int, dtype: DTypeLike) -> int:
    """Peak of the rounding bounds at some points: a walk, and what every step may err, kept to the end.

    Beside each block stand absolute values of it, of its inputs, and the parts of its bound.
    """
    itemsize = np.dtype(dtype).itemsize
    kept = sum(points * step.size * itemsize for step in program.steps if program.has_slot(step))
    return kept + walk_bytes(program, points, dtype, lambda step: 3 * points * step.size * itemsize)


def explicit_bytes(program: LinearProgram, dtype: DTypeLike) -> int:
    """Upper bound on all terms as explicit matrices, as the engine "sparse" keeps them."""
    entry = np.dtype(dtype).itemsize + 4
    return sum(entry * stored_entries(L) + 4 * L.out_size for step in program.steps for _, L in step.terms)


def stored_entries(L: Primitive) -> int:
    """Entries that `L.matrix()` stores; for a chain an upper bound."""
    match L:
        case Scale():
            return int(np.count_nonzero(L.factor)) * (L.in_size // max(1, L.factor.size))
        case Gather() | Scatter():
            return int(np.count_nonzero(L.index >= 0))
        case Broadcast():
            return L.out_size
        case Contract():
            return L.work
        case Conv():
            return L.batch * int(L.weight.shape[0] * L.weight.shape[1]) * _reads(L)
        case ConvTranspose():
            return stored_entries(L.T)
        case Sparse():
            return int(L.entries.nnz)
        case Chain():
            return _chain_entries(L)
        case _:  # Reshape, Transpose, Sum: one for each entry of x
            return L.in_size


def _reads(L: Conv) -> int:
    """Pairs of an output position and a tap that reads inside the input; each axis counts by itself."""
    pairs = 1
    for i, o, kernel, s, d, p in zip(*L.window.fields(), strict=True):
        at = np.arange(o)[:, None] * s + np.arange(kernel) * d - p
        pairs *= int(np.count_nonzero((at >= 0) & (at < i)))
    return pairs


def _chain_entries(L: Chain) -> int:
    """At most every pair; at most the last part's entries, times the fullest row of what came before."""
    fullest, bound = 1, 0
    for part in L.parts:
        bound = min(stored_entries(part) * fullest, part.out_size * L.in_size)
        fullest = min(fullest * max(1, part.fan_in), L.in_size)
    return bound
