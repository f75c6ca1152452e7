"""How far W z + b may be from F(z) by rounding alone: a bound for each row, from the arithmetic.

To first order the error of a row is Σ over steps |row's adjoint at the step| · (the step's own error), for
the network's evaluation and for the sweep alike: either computes with each entry of each Lᵢ perturbed by a
relative growth(n). Where a plan joins legs, the product of their maps rounds as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..runtime.primitives import Array, flat
from ..runtime.program import LinearProgram, Step
from ..runtime.rounding import Arithmetic, growth, step_rounding
from .compose import Composed, needed_elements, swept
from .engine import Engine
from .evidence import Evidence
from .neighbours import Neighbour
from .plan import Leg, Plan
from .sweep import Magnitudes

_DOUBLE = np.dtype(np.float64)
_AT_ONCE = 1 << 22  # entries of W whose absolute values stand beside it


def rounding_at(
    program: LinearProgram,
    evidence: Evidence,
    dtype: DTypeLike,
    arithmetic: Arithmetic,
    kept: Collection[str] = (),
) -> Magnitudes:
    """What rounding may do at each step, at x and all fresh points at once.

    Sums of sizes may leave a range that the values stay in: where they do, they are made in float64.

    Args:
        program: the network at x.
        evidence: with the places.
        dtype: floating type of the composition.
        arithmetic: the model's and the composition's, added.
        kept: tensors whose values are wanted besides.
    """
    points = [evidence.trace.free(program), *(neighbour.point for neighbour in evidence.fresh)]
    block = {name: np.stack([point[name] for point in points]).astype(dtype) for name, _ in program.inputs}
    errors: dict[str, Array] = {}
    carried: dict[str, Array] = {}  # allowances at steps that do not round, on their way to one that does
    held = dict(block)
    for step, values in program.walk(block, [1.0] * len(points)):
        if step.output in kept:
            held[step.output] = values[step.output]
        extra = allowances(step, evidence.fresh, carried)
        if program.has_slot(step):
            error = step_rounding(step, values, arithmetic)
            if step.slack is not None:
                error = error + step.slack
            errors[step.output] = error if extra is None else error + extra
        elif extra is not None:
            carried[step.output] = extra
    found = Magnitudes(errors, held, len(points))
    if found.finite or np.dtype(dtype) == _DOUBLE:
        return found
    return rounding_at(program, evidence, _DOUBLE, arithmetic, kept)


def allowances(step: Step, fresh: Sequence[Neighbour], carried: Mapping[str, Array]) -> Array | None:
    """What units at the edge of rounding add to a step's output, at x (nothing) and the fresh points."""
    here = any(step.output in neighbour.allowance for neighbour in fresh)
    if not here and not any(name in carried for name, _ in step.terms):
        return None
    extra = np.zeros((1 + len(fresh), *step.shape))
    for index, neighbour in enumerate(fresh, start=1):
        if step.output in neighbour.allowance:
            extra[index] += neighbour.allowance[step.output][0]
    for name, L in step.terms:
        if name in carried:
            extra += L.magnitude().apply(carried[name])
    return extra


def rounding_bounds(
    program: LinearProgram,
    rows: Array,
    composed: Composed,
    plan: Plan,
    engine: Engine,
    dtype: np.dtype[Any],
    magnitudes: Magnitudes,
) -> Array:
    """Bounds on |W z + b - F(z)| at the P points that the magnitudes belong to, (P, K)."""
    found = swept_bounds(program, rows, plan, engine, dtype, magnitudes)
    return found + last_rounding(program, composed, magnitudes, dtype)


def swept_bounds(
    program: LinearProgram,
    rows: Array,
    plan: Plan,
    engine: Engine,
    dtype: np.dtype[Any],
    magnitudes: Magnitudes,
) -> Array:
    """The same, but for what W z + b itself may round.

    The legs are swept once more, with the errors of their steps; W is not kept a second time.
    """
    u = Arithmetic.of(dtype).u
    total = np.zeros((magnitudes.count, len(rows)))
    upper: Array | None = None  # the rows as functions of the current leg's upper cut
    for leg in plan.legs:
        part = leg.of(program)
        wanted = rows if upper is None else needed_elements(program, leg, upper)
        bound = _bounds(leg, part, wanted, engine, dtype, magnitudes)
        if len(plan.legs) == 1:
            total[:] = bound
            break
        below = values_below(magnitudes, part)
        lower = np.zeros((len(rows), part.in_size if leg.first else 0), dtype)
        for block, found in swept(leg, part, wanted, engine, dtype):
            if upper is None:
                total[:, block] = bound[:, block]
                lower[block] = found.W[:, : lower.shape[1]]
                continue
            columns = np.ascontiguousarray(upper[:, wanted[block]])
            joining = growth(len(wanted), u) * abs_products(found.W, below)
            total += abs_products(columns, bound[:, block] + joining)
            lower += columns @ found.W[:, : lower.shape[1]]
        upper = lower
    return total


def last_rounding(
    program: LinearProgram, composed: Composed, magnitudes: Magnitudes, dtype: np.dtype[Any]
) -> Array:
    """What W z + b itself may round, (P, K): growth(N) |W| |z| and the sum of the shares."""
    u = Arithmetic.of(dtype).u
    sizes = abs_products(composed.W, values_below(magnitudes, program))
    shares: Array = np.abs(composed.shares).sum(axis=0)
    bound: Array = growth(composed.W.shape[1], u) * sizes + growth(len(composed.shares) + 1, u) * shares
    return bound


def _bounds(
    leg: Leg,
    part: LinearProgram,
    rows: Array,
    engine: Engine,
    dtype: np.dtype[Any],
    magnitudes: Magnitudes,
) -> Array:
    """Bounds for a leg's rows, (P, K)."""
    if leg.direction == "forward":
        return running_bound(part, rows, magnitudes)
    total = np.zeros((magnitudes.count, len(rows)))
    sweep = engine.bounds(leg, part, rows, dtype, magnitudes)
    for first in range(0, len(rows), leg.block):
        total[:, first : first + leg.block] = sweep(rows[first : first + leg.block])
    return total


def running_bound(program: LinearProgram, rows: Array, magnitudes: Magnitudes) -> Array:
    """Running error analysis, (P, K): e ← Σ |Lᵢ| eᵢ + the step's own error (Higham, §3.3)."""
    P = magnitudes.count
    errors = {name: np.zeros((P, *shape)) for name, shape in program.inputs}
    last = program.last_uses()
    for position, step in enumerate(program.steps):
        total = np.zeros((P, *step.shape))
        if step.output in magnitudes.errors:
            total += magnitudes.errors[step.output]
        for name, L in step.terms:
            total += L.magnitude().apply(errors[name])
        errors[step.output] = total
        for name in last.get(position, ()):
            errors.pop(name, None)
    return np.concatenate([flat(errors[name]) for name, _ in program.outputs], axis=1)[:, rows]


def values_below(magnitudes: Magnitudes, program: LinearProgram) -> Array:
    """Values of a program's inputs at the points, (P, N)."""
    return np.concatenate([flat(magnitudes.values[name]) for name, _ in program.inputs], axis=1)


def abs_products(W: Array, points: Array) -> Array:
    """|W| |z| for each point z, (P, K), without a second copy of W; in float64 where W's type overflows."""
    height = max(1, _AT_ONCE // max(1, W.shape[1]))
    for dtype in (W.dtype, _DOUBLE):
        size = np.abs(points).astype(dtype, copy=False).T
        blocks = (W[first : first + height] for first in range(0, len(W), height))
        parts = [np.abs(block).astype(dtype, copy=False) @ size for block in blocks]
        found = np.concatenate(parts).T if parts else np.zeros((points.shape[0], 0))
        if np.isfinite(found).all():
            break
    return found
