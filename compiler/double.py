"""A map in float64: against the same composed in float64, and against the model evaluated in float64.

The pattern is the one that was observed in the model's own arithmetic, so W and b differ by rounding alone.
Whether that pattern is certain is another question (`uncertain`), and what the model in float64 says of W at
points inside the region another one again (`inside`). A map that was composed in float64 is its own float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..runtime.certificate import LISTED, Double
from ..runtime.errors import UnsupportedError
from ..runtime.operator import unstacked
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ..runtime.rounding import Arithmetic, flushed, step_rounding
from .bounds import abs_products
from .evidence import DEEP, Case, Evidence
from .inside import compared_inside, evaluated_inside
from .interior import LeftOutError, directions_from
from .sweep import Magnitudes
from .uncertain import uncertain_units
from .verify import over
from .wide import Wide, wide_of

_DOUBLE = np.dtype(np.float64)


def in_double(
    case: Case, W: Any, b: Array, shares: Array | None, evidence: Evidence, rounding: Array
) -> Double:
    """What float64 says of a map.

    Args:
        case: what the map answers.
        W: (K, N), or a linear operator of that shape.
        b: (K,).
        shares: (steps, K), what each step's offset adds to b; None where W is an operator.
        evidence: with the fresh points.
        rounding: (P, K), what rounding may do to W z + b at x and the fresh points.

    Raises:
        MemoryLimitError: W in float64 would not fit.
    """
    wide = wide_of(case, W, b, shares)
    program = wide.asked.program
    points = np.stack([place.stacked(program.inputs) for place in evidence.places]).astype(_DOUBLE)
    narrow = case.dtype != _DOUBLE
    found = _recomposed(W, b, wide, points, rounding) if narrow else Double()
    uncertain, otherwise, units = uncertain_units(program, points[0], case.model)
    found = replace(found, uncertain=uncertain, otherwise=otherwise, units=units)
    if program.kind is Kind.SMOOTH:  # Jacobians at other values, those that each type computes
        return replace(found, left_out="smooth, so valid at x only")
    if narrow:
        found = replace(found, W_over_bound=_along(W, wide, case.ours))
    if otherwise:  # the model in float64 is of another piece there
        left_out = f"not comparable: units on the other side in float64: {otherwise}"
        return replace(found, left_out=left_out)
    try:
        given = (case.graph, case.scope, case.survey(), wide.asked, rounding[0], case.dtype)
        seen = evaluated_inside(*given, DEEP)
    except (LeftOutError, UnsupportedError) as error:
        return replace(found, left_out=str(error))
    return compared_inside(found, seen, wide)


def _recomposed(W: Any, b: Array, wide: Wide, points: Array, rounding: Array) -> Double:
    """Compare a map with its float64.

    Args:
        W: (K, N), or a linear operator of that shape.
        b: (K,).
        wide: the same in float64.
        points: x and fresh points, (P, N).
        rounding: (P, K), what rounding may do to W z + b at each.
    """
    shift = b.astype(W.dtype) - wide.b
    over_bound = over(_apart(W, wide, points) + shift, rounding + flushed(W.dtype))
    found = Double(b=float(np.abs(shift).max(initial=0.0)), over_bound=over_bound)
    if wide.shares is None:  # its entries are not known
        return found
    off = largest = 0.0
    for block in _blocks(W):
        off = max(off, float(np.abs(W[block].astype(_DOUBLE) - wide.W[block]).max(initial=0.0)))
        largest = max(largest, float(np.abs(wide.W[block]).max(initial=0.0)))
    return replace(found, W=off, W_largest=largest)


def _along(W: Any, wide: Wide, arithmetic: Arithmetic) -> float:
    """Largest |W d - its float64| of any row along directions d, over what rounding in the sweeps may do.

    Unlike at a point, an error in W cannot hide behind one in b.

    Args:
        W: (K, N), or a linear operator of that shape.
        wide: the same in float64.
        arithmetic: that the map was composed in.
    """
    program = wide.asked.program
    D = np.array(list(directions_from(program, wide.asked.trace)))
    if not D.size:
        return 0.0
    arithmetic = arithmetic + Arithmetic.of(_DOUBLE)
    held = unstacked(program, D)
    errors: dict[str, Array] = {}
    for step, values in program.walk(held, [0.0] * len(D)):
        if step.output in wide.asked.plan.joints:
            held[step.output] = values[step.output]
        if program.has_slot(step) and step.terms:
            linear = replace(step, offset=None, offset_size=None)
            errors[step.output] = step_rounding(linear, values, arithmetic)
    bounds = wide.rounding(Magnitudes(errors, held, len(D)), along=True)
    if wide.shares is not None:  # the last product is in float64, but W is stored in its own type
        bounds = bounds + arithmetic.u * abs_products(wide.W, D)
    return over(wide.read(_apart(W, wide, D)), bounds + flushed(W.dtype))


def _apart(W: Any, wide: Wide, points: Array) -> Array:
    """W z - its float64 of each point z, (P, K)."""
    if wide.shares is None:
        rounded = points.T.astype(W.dtype)  # as the operator itself would take them
        found: Array = (W @ rounded).T.astype(_DOUBLE) - (wide.W @ rounded).T
        return found
    apart = np.zeros((len(points), len(W)))
    for block in _blocks(W):
        apart[:, block] = points @ (W[block].astype(_DOUBLE) - wide.W[block]).T
    return apart


def _blocks(W: Array) -> list[slice]:
    """A few rows at a time, as a second W in float64 may not fit."""
    return [slice(first, first + LISTED) for first in range(0, len(W), LISTED)]
