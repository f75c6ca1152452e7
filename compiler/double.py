"""A map in float64: against the same composed in float64, and against the model evaluated in float64.

The pattern is the one that was observed in the model's own arithmetic, so W and b differ by rounding alone.
Whether that pattern is certain is another question (`uncertain`), and what the model in float64 says of W at
points inside the region another one again (`inside`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..runtime.certificate import LISTED, Double
from ..runtime.errors import UnsupportedError
from ..runtime.memory import limit_of
from ..runtime.operator import unstacked
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ..runtime.rounding import Arithmetic, step_rounding
from .answer import Asked
from .bounds import abs_products, rounding_bounds
from .compose import Composed, compose
from .engine import Engine
from .evidence import DEEP, Case, Evidence
from .inside import LeftOutError, compared_inside, evaluated_inside, straight_from
from .plan import plan_of
from .sweep import Magnitudes
from .uncertain import uncertain_units

_DOUBLE = np.dtype(np.float64)


def in_double(case: Case, composed: Composed, evidence: Evidence, rounding: Array) -> Double:
    """What float64 says of a map.

    Args:
        case: what the map answers.
        composed: the map.
        evidence: with the fresh points.
        rounding: (P, K), what rounding may do to W z + b at x and the fresh points.

    Raises:
        MemoryLimitError: W in float64 would not fit.
    """
    program = case.lowered()
    engines = case.engine.candidates("auto", _DOUBLE)
    limit = limit_of(case.memory_limit)
    plan = plan_of(program, len(case.asked.rows), _DOUBLE, engines=engines, direction="auto", limit=limit)
    plan.require_fit()
    asked = replace(case.asked, program=program, plan=plan)
    wide = compose(program, asked.rows, plan, case.engine, _DOUBLE)
    points = np.stack([place.stacked(program.inputs) for place in evidence.places]).astype(_DOUBLE)
    found = _recomposed(composed, wide, points, rounding)
    uncertain, otherwise, units = uncertain_units(program, points[0], case.model)
    found = replace(found, uncertain=uncertain, otherwise=otherwise, units=units)
    if program.kind is Kind.SMOOTH:  # Jacobians at other values, those that each type computes
        return replace(found, left_out="smooth, so valid at x only")
    found = replace(found, W_over_bound=_along(composed, wide, asked, case.engine, case.ours))
    if otherwise:  # the model in float64 is of another piece there
        left_out = f"not comparable: units on the other side in float64: {otherwise}"
        return replace(found, left_out=left_out)
    try:
        seen = evaluated_inside(case.graph, case.scope, case.survey(), asked, rounding[0], DEEP)
    except (LeftOutError, UnsupportedError) as error:
        return replace(found, left_out=str(error))
    return compared_inside(found, seen, wide, asked, case.engine)


def _recomposed(composed: Composed, wide: Composed, points: Array, rounding: Array) -> Double:
    """Compare a map with its composition in float64.

    Args:
        composed: the map.
        wide: the same in float64.
        points: x and fresh points, (P, N).
        rounding: (P, K), what rounding may do to W z + b at each.
    """
    largest, apart = 0.0, np.zeros((len(points), len(composed.W)))
    off = 0.0
    for first in range(0, len(composed.W), LISTED):
        block = slice(first, first + LISTED)
        difference = composed.W[block].astype(_DOUBLE) - wide.W[block]
        off = max(off, float(np.abs(difference).max(initial=0.0)))
        largest = max(largest, float(np.abs(wide.W[block]).max(initial=0.0)))
        apart[:, block] = points @ difference.T
    shift = composed.b.astype(composed.W.dtype) - wide.b
    ratios = np.abs(apart + shift) / (rounding + np.finfo(np.float32).tiny)
    return Double(
        W=off,
        W_largest=largest,
        b=float(np.abs(shift).max(initial=0.0)),
        over_bound=float(ratios.max(initial=0.0)),
    )


def _along(composed: Composed, wide: Composed, asked: Asked, engine: Engine, arithmetic: Arithmetic) -> float:
    """Largest |W d - its float64| of any row along directions d, over what rounding in the sweeps may do.

    Unlike at a point, an error in W cannot hide behind one in b.

    Args:
        composed: the map.
        wide: the same in float64.
        asked: the question, with the network lowered in float64 and its plan.
        engine: for the sweep of the bounds.
        arithmetic: that the map was composed in.
    """
    program = asked.program
    D = np.array(list(straight_from(program, asked.trace)))
    if not D.size:
        return 0.0
    arithmetic = arithmetic + Arithmetic.of(_DOUBLE)
    held = unstacked(program, D)
    errors: dict[str, Array] = {}
    for step, values in program.walk(held, [0.0] * len(D)):
        if step.output in asked.plan.joints:
            held[step.output] = values[step.output]
        if program.has_slot(step) and step.terms:
            linear = replace(step, offset=None, offset_size=None)
            errors[step.output] = step_rounding(linear, values, arithmetic)
    slopes = replace(wide, shares=np.zeros_like(wide.shares))
    magnitudes = Magnitudes(errors, held, len(D))
    bounds = rounding_bounds(program, asked.rows, slopes, asked.plan, engine, _DOUBLE, magnitudes)
    # The last product is in float64, but W is stored in its own type.
    bounds = bounds + arithmetic.u * abs_products(wide.W, D) + np.finfo(np.float32).tiny
    off = np.zeros_like(bounds)
    for first in range(0, len(wide.W), LISTED):
        block = slice(first, first + LISTED)
        off[:, block] = D @ (composed.W[block].astype(_DOUBLE) - wide.W[block]).T
    return float((np.abs(off) / bounds).max(initial=0.0))
