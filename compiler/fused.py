"""The reverse sweep over active units only, with compiled kernels; numba is imported when it first runs."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from .fused_store import FusedStore
from .sweep import Progress


def fused_available() -> bool:
    """Whether numba can be imported, which the kernels are compiled by."""
    return find_spec("numba") is not None


def fused_rows(
    program: LinearProgram,
    rows: Array,
    dtype: np.dtype[Any],
    store: FusedStore,
    progress: Progress | None = None,
) -> tuple[Array, Array]:
    """Rows of W, and what each step's offset adds to b.

    Args:
        program: the network at x.
        rows: (k,) flat indices into the stacked, flattened outputs; any of them may repeat. For a program
            that stacks several points along axis 0, (k, points): row k of each point, in its own image.
        dtype: float32 or float64, of W and of the sums.
        store: kept by the caller from point to point.
        progress: called with the steps done and their number.

    Returns:
        W's rows, (k, N) in C order, columns in the order of the program's inputs; and the shares,
        (steps, k), or (steps, points, k), in float64, summed in float64 over the active units.
    """
    if not len(rows):
        return np.zeros((0, program.in_size), dtype), np.zeros((len(program.steps), 0))
    from .active_sweep import ActiveSweep

    wanted = np.asarray(rows)
    W, shares = ActiveSweep(program, wanted, np.dtype(dtype), store).run(progress)
    return W, shares if wanted.ndim == 2 else shares[:, 0]


def fused_bytes(program: LinearProgram, k: int, dtype: np.dtype[Any]) -> int:
    """An upper estimate of the working memory of `fused_rows`, W left out: every unit taken as active."""
    itemsize = np.dtype(dtype).itemsize
    vector = 64 // itemsize
    per_unit = (-(-k // vector) + 1) * vector * itemsize
    sizes = {name: math.prod(shape) for name, shape in program.inputs}
    sizes |= {step.output: step.size for step in program.steps}
    alive = {name: sizes[name] for name, _ in program.outputs}
    most = sum(alive.values())
    for step in reversed(program.steps):
        for name, _ in step.terms:
            alive[name] = sizes[name]
        most = max(most, sum(alive.values()) + max([sizes[name] for name, _ in step.terms], default=0))
        alive.pop(step.output, None)
    tables = 16 * sum(sizes.values())
    return most * per_unit + tables
