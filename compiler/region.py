"""Fresh points in the linear region of x, to test a map where it was not made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.errors import NonFiniteError
from ..runtime.primitives import Array, flat
from ..runtime.program import Guard, HalfSpaces, LinearProgram, Step
from ..runtime.rounding import running_errors
from .trace import Trace

Point = Mapping[str, Array]


@dataclass(frozen=True)
class Ray:
    """A direction from x, and how far one can go along it before a guard gives way."""

    direction: Point
    length: float  # in multiples of the direction; infinite where nothing gives way


@dataclass(frozen=True)
class Neighbour:
    """A fresh point of x's region."""

    point: Point
    trace: Trace
    allowance: Mapping[str, Array]  # step output to what units at the edge of rounding add to the error


def find_neighbours(
    program: LinearProgram,
    trace: Trace,
    probe: Callable[[Trace, Point], Trace],
    lower: Callable[[Trace], LinearProgram],
    dtype: np.dtype[Any],
    u: float,
    count: int = 2,
) -> tuple[list[Neighbour], int]:
    """Find fresh points of x's region by stepping along rays.

    Args:
        program: the network at x.
        trace: x.
        probe: observes the model at another point.
        lower: lowers the network there.
        dtype: floating type of the program.
        u: unit roundoff of the coarser of the model's arithmetic and the program's.
        count: how many points are wanted.

    Returns:
        The points found, and how many were tried.
    """
    x = trace.free(program)
    kept: list[Neighbour] = []
    tried = 0
    for ray in draw_rays(program, x, dtype, u):
        # Half-way to the boundary, and no farther than a change of x by about half its own size.
        length = min(0.5 * ray.length, 0.5)
        z = {name: (value + length * ray.direction[name]).astype(value.dtype) for name, value in x.items()}
        if all(np.array_equal(z[name], x[name]) for name in x):
            continue  # the region is thinner than the spacing of floating-point numbers along this ray
        tried += 1
        try:
            there = probe(trace, z)
        except NonFiniteError:
            continue
        allowance = same_piece(program, lower(there), z, dtype, u)
        if allowance is not None:
            kept.append(Neighbour(z, there, allowance))
        if len(kept) == count:
            break
    return kept, tried


def draw_rays(program: LinearProgram, x: Point, dtype: np.dtype[Any], u: float) -> Iterator[Ray]:
    """Draw directions and find their exact length inside the region, by a tangent sweep.

    Directions are of several families, as some regions are flat in most of them: where x is zero over a
    wide area, pre-activations often sit exactly on a kink there, and only a change of the other entries
    stays inside. Families: every entry moves; entries move in proportion to x; x as a whole is scaled.
    Each is tried along and against.

    Args:
        program: the network at x.
        x: the point, by input name.
        dtype: floating type to sweep in.
        u: unit roundoff of the coarser arithmetic.

    Yields:
        Rays, longest first; then, computed only when asked for, further ones with lengths that pass over
        units whose margin at x is below the rounding error, such as differences of two equal terms.
    """
    yield from _measured(program, x, _directions(x, seed=0), dtype)
    yield from _measured(program, x, _directions(x, seed=1), dtype, u)


def _measured(
    program: LinearProgram, x: Point, directions: list[Point], dtype: np.dtype[Any], u: float | None = None
) -> list[Ray]:
    """Rays along and against the directions, longest first; with u, units in doubt are passed over."""
    block = {
        name: np.stack([value, *(direction[name] for direction in directions)]).astype(dtype)
        for name, value in x.items()
    }
    doubts = None if u is None else running_errors(program, {n: v[:1] for n, v in block.items()}, u)
    lengths = np.full((2, len(directions)), np.inf)  # along, against
    for step, values in program.walk(block, [1.0] + [0.0] * len(directions)):
        errors = None if doubts is None else next(doubts)[2]
        for guard in step.guards:
            lengths = np.minimum(lengths, _lengths(step, guard.half_spaces(), values, errors))
    found = [
        Ray({name: sign * value for name, value in direction.items()}, float(length))
        for sign, row in zip((1, -1), lengths, strict=True)
        for direction, length in zip(directions, row, strict=True)
    ]
    return sorted(found, key=lambda ray: -ray.length)


def _directions(x: Point, seed: int) -> list[Point]:
    random = np.random.default_rng(seed)
    noise = {name: random.standard_normal(value.shape) for name, value in x.items()}
    return [
        {name: noise[name] * (float(np.abs(x[name]).mean()) or 1.0) for name in x},
        {name: noise[name] * x[name] for name in x},
        {name: np.asarray(value, float) for name, value in x.items()},
    ]


def _lengths(
    step: Step, half_spaces: HalfSpaces, values: Mapping[str, Array], errors: Mapping[str, Array] | None
) -> Array:
    """Largest t with margin ± t·rate ≥ 0 for every half-space, (2, directions). Row 0 of values is x."""
    total = _on_operands(step, half_spaces, values, magnitude=False)
    rows = flat(total)
    margin = np.maximum(rows[0] + np.broadcast_to(half_spaces.offset, total.shape[1:]).ravel(), 0)
    rates = rows[1:]
    if errors is not None:
        sure = margin > _on_operands(step, half_spaces, errors, magnitude=True).ravel()
        margin, rates = margin[sure], rates[:, sure]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        lengths = margin / np.abs(rates)
    return np.stack(
        [np.where(closes, lengths, np.inf).min(axis=1, initial=np.inf) for closes in (rates < 0, rates > 0)]
    )


def _on_operands(
    step: Step, half_spaces: HalfSpaces, values: Mapping[str, Array], *, magnitude: bool
) -> Array:
    """Σ Lᵢ uᵢ (or Σ |Lᵢ| uᵢ) of the half-spaces over blocks of the node's inputs, (B, *rows)."""
    total = np.zeros((), np.float32)
    for position, L in half_spaces.terms:
        name = step.operands[position]
        assert name is not None
        total = total + (L.magnitude() if magnitude else L).apply(values[name])
    return np.asarray(total)


def same_piece(
    at_x: LinearProgram, at_z: LinearProgram, z: Point, dtype: np.dtype[Any], u: float
) -> dict[str, Array] | None:
    """Compare the choices that the model made at x and at z.

    Returns:
        None where they differ. Units whose margin at z is below the rounding error there may differ, as
        neither choice is certain; what the other choice would change of their step's output is returned,
        by step output, (1, *shape).
    """
    differing = {
        one.output
        for one, other in zip(at_x.steps, at_z.steps, strict=True)
        for first, second in zip(one.guards, other.guards, strict=True)
        if not np.array_equal(first.choice, second.choice)
    }
    allowance: dict[str, Array] = {}
    if not differing:
        return allowance
    block = {name: value[None].astype(dtype) for name, value in z.items()}
    walk = zip(running_errors(at_x, block, u), at_z.steps, strict=True)
    for (step, values, errors), other in walk:
        if step.output not in differing:
            continue
        if not all(
            _in_doubt(step, first, second, errors)
            for first, second in zip(step.guards, other.guards, strict=True)
        ):
            return None
        allowance[step.output] = np.abs(values[step.output] - other.apply(values, np.ones(1, dtype)))
    return allowance


def _in_doubt(step: Step, first: Guard, second: Guard, errors: Mapping[str, Array]) -> bool:
    """Whether every unit that chose differently has a margin within rounding, where one can tell."""
    changed = np.ravel(first.choice != second.choice)
    if not changed.any():
        return True
    doubt = _on_operands(step, first.half_spaces(), errors, magnitude=True).ravel()
    if doubt.size != changed.size:  # pairs within windows, not one half-space for each unit
        return False
    return bool((np.ravel(second.margin)[changed] <= doubt[changed]).all())
