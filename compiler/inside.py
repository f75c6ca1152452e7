"""W against the model in float64, at points inside the region: the check that has power over slopes.

In float32 many a region is thinner than the rounding of what the model computes in it, and no run of the
model tells its slopes apart. Rounding in float64 is 10⁹ times smaller, and the region as wide. The model is
evaluated by what nobody here wrote (`runtime.in_double`), at points inside by geometry (`interior`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..runtime.certificate import LISTED, Double
from ..runtime.errors import ModelError, OutputError
from ..runtime.in_double import evaluated, seconds
from ..runtime.operator import unstacked
from ..runtime.primitives import Array
from ..runtime.rounding import Arithmetic, step_rounding
from ..runtime.surgery import with_inputs
from .answer import Asked
from .bounds import abs_products, rounding_bounds
from .compose import Composed
from .engine import Engine
from .graph import Graph
from .interior import LeftOutError, directions_from, interior, require_comparable, work_of
from .neighbours import Neighbour
from .region import Survey
from .scope import Scope
from .sweep import Magnitudes
from .verify import Evidence, rounding_at

_DOUBLE = np.dtype(np.float64)
_SECONDS = 30.0  # that evaluating in float64 may take, by the estimate


@dataclass(frozen=True)
class Inside:
    """The model in float64 at x and at points of its region."""

    evaluator: str
    steps: Array  # (P, N): z - x
    moved: Array  # (P, all outputs): F(z) - F(x)


def evaluated_inside(
    graph: Graph, scope: Scope, survey: Survey, asked: Asked, rounding: Array, count: int
) -> Inside:
    """Evaluate a model in float64 at x and at points inside its region.

    Args:
        graph: the model, with one way through it.
        scope: the part of it that is explained.
        survey: the geometry of the region at x.
        asked: the question.
        rounding: (K,), what rounding in the model's own type may do at x.
        count: how many points are wanted.

    Raises:
        LeftOutError: it would take too long, nothing evaluates it, or not as the model was observed at x, or
            no direction stays inside.
    """
    program, trace, rows = survey.program, asked.trace, asked.rows
    require_comparable(graph, program)
    expected = (count + 1) * seconds(*work_of(program))
    if expected > _SECONDS:
        raise LeftOutError(f"it would take about {expected:.0f} s")
    points = interior(survey, trace, count)
    if (points[0] != survey.x).any():
        raise LeftOutError("float64 puts units on the other side at x")
    blocks = unstacked(program, points)
    proto = graph.proto
    inner = set(scope.inputs) - {put.name for put in graph.inputs}
    if inner:
        proto = with_inputs(proto, {name: trace.values[name].dtype for name in inner})
    outputs = [name for name, _ in program.outputs]
    places = [{name: block[i] for name, block in blocks.items()} for i in range(len(points))]
    given = (proto, graph.surroundings, scope.inputs, outputs, {**trace.feeds, **trace.free(program)}, places)
    try:
        evaluator, answers = evaluated(*given)
    except (ModelError, OutputError) as error:
        raise LeftOutError(str(error)) from error
    apart = np.abs(answers[0, rows] - trace.answered(program.outputs)[rows].astype(np.float64))
    if not (apart <= rounding + np.finfo(np.float32).tiny).all():
        raise LeftOutError(
            f"{evaluator} differs at x from what was observed by {apart.max():.1e}, more than by rounding"
        )
    return Inside(evaluator, points[1:] - points[0], answers[1:] - answers[0])


def compared_inside(found: Double, seen: Inside, wide: Composed, asked: Asked, engine: Engine) -> Double:
    """What the model in float64 says of W, row by row, against what rounding in float64 may do.

    Args:
        found: what is known already.
        seen: the model.
        wide: the map in float64.
        asked: the question, with the network lowered in float64 and its plan.
        engine: for the sweep of the bounds.
    """
    program, trace, rows = asked.program, asked.trace, asked.rows
    x = trace.stacked(program.inputs).astype(np.float64)
    blocks = unstacked(program, x + seen.steps)
    points = [{name: block[i] for name, block in blocks.items()} for i in range(len(seen.steps))]
    arithmetic = Arithmetic.of(np.float64) + Arithmetic.of(np.float64)  # the model's and the composition's
    evidence = Evidence(trace, [Neighbour(point, trace, {}) for point in points], 0, arithmetic)
    magnitudes = rounding_at(program, evidence, np.float64, arithmetic, asked.plan.joints)
    at_x, *at_points = rounding_bounds(program, rows, wide, asked.plan, engine, _DOUBLE, magnitudes)
    bounds = np.array(at_points) + at_x + np.finfo(np.float64).tiny
    moved = seen.moved[:, rows]
    off = np.abs(seen.steps @ wide.W.T - moved)
    return replace(
        found,
        evaluator=seen.evaluator,
        points=len(seen.steps),
        in_region=float(off.max(initial=0.0)),
        in_region_over_bound=float((off / bounds).max(initial=0.0)),
        moved_over_bound=float((np.abs(moved) / bounds).max(initial=0.0)),
    )


def off_along(
    composed: Composed, wide: Composed, asked: Asked, engine: Engine, arithmetic: Arithmetic
) -> float:
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
    D = np.array(list(directions_from(program, asked.trace)))
    if not D.size:
        return 0.0
    arithmetic = arithmetic + Arithmetic.of(np.float64)
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
        off[:, block] = D @ (composed.W[block].astype(np.float64) - wide.W[block]).T
    return float((np.abs(off) / bounds).max(initial=0.0))
