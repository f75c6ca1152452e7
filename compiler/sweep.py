"""The reverse sweep with numpy and scipy; what every engine's sweep is given and returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.primitives import Array, flat
from ..runtime.program import LinearProgram
from .multiplier import Multiplier

Progress = Callable[[int, int], None]  # called with what is done, and how much there is to do


@dataclass(frozen=True)
class Magnitudes:
    """What the rounding bound is made of: errors at P points of the region."""

    errors: Mapping[str, Array]  # step output to the error that evaluating that step may make, (P, *shape)
    values: Mapping[str, Array]  # tensors between the plan's legs, and the inputs: their values, (P, *shape)
    count: int  # P

    @property
    def finite(self) -> bool:
        """Whether no error left the range of the type that it was worked out in."""
        return all(bool(np.isfinite(error).all()) for error in self.errors.values())

    def and_at(self, others: Magnitudes) -> Magnitudes:
        """The same with further points behind."""
        errors = {name: np.concatenate([error, others.errors[name]]) for name, error in self.errors.items()}
        values = {name: np.concatenate([value, others.values[name]]) for name, value in self.values.items()}
        return Magnitudes(errors, values, self.count + others.count)


@dataclass(frozen=True)
class Swept:
    """Some rows of a program's map."""

    W: Array  # (k, N)
    shares: Array  # (steps, k): what each step's offset adds to b


Sweep = Callable[[Array], Swept]  # from k flat output indices


def rows_back(program: LinearProgram, multiplier: Multiplier, dtype: np.dtype[Any]) -> Sweep:
    """Return the sweep that multiplies a block of rows by each step's transpose, back to the inputs."""

    def back(rows: Array) -> Swept:
        shares = np.zeros((len(program.steps), len(rows)))
        adjoint = _seeded(program, rows, dtype)
        for position, block in _walk_back(program, multiplier, adjoint):
            offset = program.steps[position].offset_block()
            if offset is not None:
                shares[position] = flat(block) @ offset.ravel().astype(dtype)
        reached = [
            flat(adjoint[name]) if name in adjoint else np.zeros((len(rows), math.prod(shape)), dtype)
            for name, shape in program.inputs
        ]
        if not reached:  # below a cut that nothing passes
            return Swept(np.zeros((len(rows), 0), dtype), shares)
        return Swept(reached[0] if len(reached) == 1 else np.concatenate(reached, axis=1), shares)

    return back


def bounds_back(
    program: LinearProgram, multiplier: Multiplier, dtype: np.dtype[Any], magnitudes: Magnitudes
) -> Callable[[Array], Array]:
    """Return the sweep that adds up Σ |row's adjoint at a step| · (the step's own error), (k,) to (P, k).

    Instead of k flat output indices it takes k functionals of the outputs as well, (k, all outputs).
    """

    def back(rows: Array) -> Array:
        total = np.zeros((magnitudes.count, len(rows)))
        for position, block in _walk_back(program, multiplier, _seeded(program, rows, dtype)):
            errors = magnitudes.errors.get(program.steps[position].output)
            if errors is not None:
                total += flat(errors).astype(dtype) @ np.abs(flat(block)).T
        return total

    return back


def _walk_back(
    program: LinearProgram, multiplier: Multiplier, adjoint: dict[str, Array]
) -> Iterator[tuple[int, Array]]:
    """Positions of the steps, last to first, with the adjoint of each output, (k, *shape).

    `adjoint` maps tensors to the rows as functions of them; the inputs' are left in it at the end.
    """
    for position in range(len(program.steps) - 1, -1, -1):
        step = program.steps[position]
        block = adjoint.pop(step.output, None)
        if block is None:
            continue
        yield position, block
        for index, (name, _) in enumerate(step.terms):
            part = multiplier.back((position, index), block)
            adjoint[name] = adjoint[name] + part if name in adjoint else part


def _seeded(program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> dict[str, Array]:
    adjoint: dict[str, Array] = {}
    for (name, _), seed in zip(program.outputs, seeds(program, rows, dtype), strict=True):
        adjoint[name] = adjoint[name] + seed if name in adjoint else seed
    return adjoint


def seeds(program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> list[Array]:
    """Rows at the outputs, (k, *shape) for each output.

    Args:
        program: with the outputs.
        rows: (k,) flat indices, whose rows are unit vectors; or the rows themselves, (k, all outputs).
        dtype: of the blocks.
    """
    if rows.ndim == 2:
        ends = np.cumsum([math.prod(shape) for _, shape in program.outputs])[:-1]
        parts = np.split(rows.astype(dtype, copy=False), ends, axis=1)
        return [
            np.ascontiguousarray(part).reshape(len(rows), *shape)
            for part, (_, shape) in zip(parts, program.outputs, strict=True)
        ]
    blocks = []
    for _, shape, mine, entries in program.by_output(rows):
        block = np.zeros((len(rows), math.prod(shape)), dtype)
        block[mine, entries] = 1
        blocks.append(block.reshape(len(rows), *shape))
    return blocks
