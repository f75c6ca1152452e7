"""Compose: a linear program to W, b and b's shares, by one sweep over its steps.

Reverse (rows): a block of output rows is multiplied by each step's transpose, back to the inputs.
Forward (columns): the inputs' unit vectors are carried to the outputs. Either way the offsets travel along
the same sweep, and so does a bound on the rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from ..runtime.primitives import Array, flat
from ..runtime.program import LinearProgram
from ..runtime.rounding import Arithmetic, growth
from .engine import Engine
from .multiplier import Multiplier
from .sweep import Magnitudes

Progress = Callable[[int, int], None]  # (done, of)


@dataclass(frozen=True)
class Composed:
    """The affine map at x."""

    W: Array  # (K, N)
    b: Array  # (K,)
    shares: Array  # (steps, K): what each step's offset adds to b
    rounding: Array  # (P, K): bound on |W z + b - F(z)| at P points, from the arithmetic
    direction: Literal["reverse", "forward"]


def compose(
    program: LinearProgram,
    rows: Array,
    *,
    engine: Engine,
    dtype: DTypeLike,
    magnitudes: Magnitudes,
    budget: int,
    progress: Progress | None = None,
) -> Composed:
    """Compose the program for the given rows.

    Args:
        program: the network at x.
        rows: (K,) flat indices into the stacked, flattened outputs.
        engine: how a block is multiplied by a step.
        dtype: floating type of the result.
        magnitudes: what the rounding bound is made of.
        budget: bytes that the working blocks may take.
        progress: called with the passes done and their number.
    """
    if program.in_size + len(program.steps) < len(rows):
        return _forward(program, rows, engine, np.dtype(dtype), magnitudes, budget, progress)
    return _reverse(program, rows, engine, np.dtype(dtype), magnitudes, budget, progress)


# -- reverse: rows -----------------------------------------------------------------------------------


def _reverse(
    program: LinearProgram,
    rows: Array,
    engine: Engine,
    dtype: np.dtype[Any],
    magnitudes: Magnitudes,
    budget: int,
    progress: Progress | None,
) -> Composed:
    K, N = len(rows), program.in_size
    W = np.empty((K, N), dtype)
    shares = np.zeros((len(program.steps), K))
    rounding = np.zeros((len(magnitudes.inputs), K))
    sweep = engine.sweep(program, rows, magnitudes, dtype)
    chunk = max(1, min(K, budget // max(1, _peak_elements(program) * dtype.itemsize)))
    for first in range(0, K, chunk):
        part = slice(first, min(K, first + chunk))
        W[part], shares[:, part], rounding[:, part] = sweep(rows[part])
        if progress:
            progress(part.stop, K)
    _add_final_rounding(rounding, W, magnitudes.inputs, shares, dtype)
    return Composed(W, shares.sum(axis=0), shares, rounding, "reverse")


# -- forward: columns --------------------------------------------------------------------------------


def _forward(
    program: LinearProgram,
    rows: Array,
    engine: Engine,
    dtype: np.dtype[Any],
    magnitudes: Magnitudes,
    budget: int,
    progress: Progress | None,
) -> Composed:
    """Carry N unit vectors, and one more column for each step's offset, to the outputs."""
    K, N, S = len(rows), program.in_size, len(program.steps)
    columns = np.empty((N + S, K), dtype)
    multiplier = engine.multiplier(program, rows, dtype)
    chunk = max(1, min(N + S, budget // max(1, _peak_elements(program) * dtype.itemsize)))
    for first in range(0, N + S, chunk):
        part = range(first, min(N + S, first + chunk))
        columns[part.start : part.stop] = _sweep_on(program, part, N, rows, multiplier, dtype)
        if progress:
            progress(part.stop, N + S)
    W = np.ascontiguousarray(columns[:N].T)
    shares = columns[N:].astype(np.float64)
    rounding = _running_bound(program, rows, magnitudes)
    _add_final_rounding(rounding, W, magnitudes.inputs, shares, dtype)
    return Composed(W, shares.sum(axis=0), shares, rounding, "forward")


def _sweep_on(
    program: LinearProgram,
    part: range,
    N: int,
    rows: Array,
    multiplier: Multiplier,
    dtype: np.dtype[Any],
) -> Array:
    """The columns in `part`: unit vectors below N, then one for each step's offset. (columns, K)."""
    values: dict[str, Array] = {}
    start = 0
    for name, shape in program.inputs:
        size = int(np.prod(shape, dtype=np.int64))
        block = np.zeros((len(part), size), dtype)
        mine = [column for column in part if start <= column < start + size]
        block[[column - part.start for column in mine], [column - start for column in mine]] = 1
        values[name] = block.reshape(len(part), *shape)
        start += size
    last = program.last_uses()
    for position, step in enumerate(program.steps):
        block = np.zeros((len(part), *step.shape), dtype)
        for index, (name, _) in enumerate(step.terms):
            block += multiplier.on((position, index), values[name])
        if step.offset is not None and N + position in part:
            block[N + position - part.start] += step.offset_block()
        values[step.output] = block
        for name in last.get(position, ()):
            values.pop(name, None)
    stacked = np.concatenate([flat(values[name]) for name, _ in program.outputs], axis=1)
    return stacked[:, rows]


def _running_bound(program: LinearProgram, rows: Array, magnitudes: Magnitudes) -> Array:
    """Running error analysis, (P, K): e ← Σ |Lᵢ| eᵢ + the step's own error (Higham, §3.3)."""
    P = len(magnitudes.inputs)
    errors = {name: np.zeros((P, *shape)) for name, shape in program.inputs}
    last = program.last_uses()
    for position, step in enumerate(program.steps):
        total = np.zeros((P, *step.shape))
        if program.has_slot(step):
            total += magnitudes.errors[step.output]
        for name, L in step.terms:
            total += L.magnitude().apply(errors[name])
        errors[step.output] = total
        for name in last.get(position, ()):
            errors.pop(name, None)
    return np.concatenate([flat(errors[name]) for name, _ in program.outputs], axis=1)[:, rows]


# -- both ------------------------------------------------------------------------------------------


def _peak_elements(program: LinearProgram) -> int:
    """Elements that one row keeps alive at once: the largest step with its inputs, and some room."""
    largest = max((sum(L.in_size + L.out_size for _, L in s.terms) for s in program.steps), default=1)
    return 3 * max(largest, program.in_size, program.out_size)


def _add_final_rounding(
    rounding: Array, W: Array, inputs: Array, shares: Array, dtype: np.dtype[Any]
) -> None:
    """Add what W z + b itself may round: growth(N) |W| |z| and the sum of the shares."""
    u = Arithmetic.of(dtype).u
    for point in range(len(inputs)):
        rounding[point] += growth(W.shape[1], u) * _abs_product(W, inputs[point])
    rounding += growth(len(shares) + 1, u) * np.abs(shares).sum(axis=0)


def _abs_product(W: Array, z: Array, block: int = 4096) -> Array:
    """|W| |z| without a second copy of W."""
    parts = [np.abs(W[i : i + block]) @ np.abs(z).astype(W.dtype) for i in range(0, len(W), block)]
    return np.concatenate(parts) if parts else np.zeros(0)
