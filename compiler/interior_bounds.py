"""How far W may be from the model in float64, on the way from a base to points inside the region.

W in float32 is off by what composing it rounds. How much that is along a known step, a sweep in float64
tells, and a bound on it is derived as in `bounds`; the smaller of the two counts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..runtime.operator import unstacked
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from ..runtime.rounding import Arithmetic, flushed, growth, step_rounding
from .bounds import abs_products
from .interior import Points
from .plan import Plan
from .sweep import Magnitudes

_ROWS = 4096  # of W in float64 at once


def rounding_along(
    program: LinearProgram, points: Points, arithmetic: Arithmetic, plan: Plan, *, wide: bool = False
) -> Magnitudes:
    """What rounding may do at each step on the way from the base to points inside the region.

    Args:
        program: the network at x, in the type that W is composed in.
        points: the base and z.
        arithmetic: that W was composed in.
        plan: that it was composed by.
        wide: work it out in float64; else only where a value leaves the range of float32.

    Returns:
        At 2 Q places: for each point what float64 may do to F(z) - F(base) and to the map along z - base;
        then for each what composing W may do along z - base, whatever the offsets are.
    """
    double, count = Arithmetic.of(np.float64), len(points.inside)
    narrow = arithmetic.u > double.u and not wide
    dtype = np.float32 if narrow else np.float64
    held = unstacked(program, (points.inside - points.base).astype(dtype))
    places = unstacked(program, np.array([points.base, *points.inside], dtype))
    errors: dict[str, Array] = {}
    along = program.walk(dict(held), [0.0] * count)
    at = program.walk(places, [1.0] * (1 + count))
    for (step, tangents), (_, values) in zip(along, at, strict=True):
        if step.output in plan.joints:
            held[step.output] = tangents[step.output]
        if not program.has_slot(step):
            continue
        at_base, at_points = np.split(step_rounding(step, values, double), [1])
        evaluating, composing = at_points + at_base, np.zeros_like(at_points)
        if step.terms:
            linear = replace(step, offset=None, offset_size=None)
            evaluating = evaluating + step_rounding(linear, tangents, double)
            composing = step_rounding(linear, tangents, arithmetic)
        errors[step.output] = np.concatenate([evaluating, composing])
    # What joins a plan's legs is part of composing alone.
    joined = {name: np.concatenate([np.zeros_like(value), value]) for name, value in held.items()}
    found = Magnitudes(errors, joined, 2 * count)
    return (
        rounding_along(program, points, arithmetic, plan, wide=True) if narrow and not found.finite else found
    )


def inside_bounds(rounding: Array, W: Array, points: Points, rows: Array) -> Array:
    """Bounds on |W (z - base) - (F(z) - F(base))| in float64 at points inside the region, (Q, K).

    What W lost by being composed and stored in its own type is known along z - base: it is the difference
    from the same in float64. It counts as far as rounding explains it, so that a W that is wrong shows.

    Args:
        rounding: (2 Q, K), of what `rounding_along` gives.
        W: (K, N).
        points: the base and z.
        rows: (K,) flat output indices behind W's rows.
    """
    evaluating, composing = np.split(rounding, 2)
    steps = points.inside - points.base
    sizes = abs_products(W, steps)
    lost = np.empty_like(composing)
    for first in range(0, len(W), _ROWS):
        block = slice(first, first + _ROWS)
        lost[:, block] = np.abs(steps @ W[block].astype(np.float64).T - points.moved[:, rows[block]])
    product = growth(W.shape[1], Arithmetic.of(np.float64).u) * sizes
    explained = composing + Arithmetic.of(W.dtype).u * sizes
    return np.asarray(evaluating + 2 * product + np.minimum(lost, explained) + flushed(W.dtype))
