"""The reverse sweep with numpy and scipy; what every engine's sweep is given and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.primitives import Array, flat
from ..runtime.program import LinearProgram
from .multiplier import Multiplier


@dataclass(frozen=True)
class Magnitudes:
    """What the rounding bound is made of: errors at P points of the region."""

    errors: Mapping[str, Array]  # step output to the error that evaluating that step may make, (P, *shape)
    inputs: Array  # the points, (P, N)


# From k rows, flat output indices, to W's rows (k, N), the offsets' shares in b (steps, k) and bounds on the
# rounding error (P, k).
Sweep = Callable[[Array], tuple[Array, Array, Array]]


def numpy_sweep(
    program: LinearProgram, multiplier: Multiplier, magnitudes: Magnitudes, dtype: np.dtype[Any]
) -> Sweep:
    """Return the sweep that multiplies a block of rows by each step's transpose, back to the inputs."""

    def back(rows: Array) -> tuple[Array, Array, Array]:
        shares = np.zeros((len(program.steps), len(rows)))
        rounding = np.zeros((len(magnitudes.inputs), len(rows)))
        adjoint: dict[str, Array] = {}  # tensor → (k, *shape): the rows as functions of that tensor
        for (name, _), seed in zip(program.outputs, seeds(program, rows, dtype), strict=True):
            adjoint[name] = adjoint[name] + seed if name in adjoint else seed
        for position in range(len(program.steps) - 1, -1, -1):
            step = program.steps[position]
            block = adjoint.pop(step.output, None)
            if block is None:
                continue
            offset = step.offset_block()
            if offset is not None:
                shares[position] = flat(block) @ offset.ravel().astype(dtype)
            if program.has_slot(step):
                rounding += flat(magnitudes.errors[step.output]).astype(dtype) @ np.abs(flat(block)).T
            for index, (name, _) in enumerate(step.terms):
                part = multiplier.back((position, index), block)
                adjoint[name] = adjoint[name] + part if name in adjoint else part
        reached = [
            flat(adjoint[name])
            if name in adjoint
            else np.zeros((len(rows), int(np.prod(shape, dtype=np.int64))), dtype)
            for name, shape in program.inputs
        ]
        return np.concatenate(reached, axis=1), shares, rounding

    return back


def seeds(program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> list[Array]:
    """Unit rows, (k, *shape) for each output."""
    blocks = []
    start = 0
    for _, shape in program.outputs:
        size = int(np.prod(shape, dtype=np.int64))
        mine = np.flatnonzero((rows >= start) & (rows < start + size))
        block = np.zeros((len(rows), size), dtype)
        block[mine, rows[mine] - start] = 1
        blocks.append(block.reshape(len(rows), *shape))
        start += size
    return blocks
