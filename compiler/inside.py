"""W against the model in float64, at points inside the region: the check that has power over slopes.

In float32 many a region is thinner than the rounding of what the model computes in it, and no run of the
model tells its slopes apart. Rounding in float64 is 10⁹ times smaller, and the region as wide. The model is
evaluated by what nobody here wrote (`runtime.in_double`), at points inside by geometry (`interior`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike

from ..runtime.certificate import Double
from ..runtime.errors import ModelError, OutputError
from ..runtime.in_double import evaluated, seconds
from ..runtime.operator import unstacked
from ..runtime.primitives import Array
from ..runtime.rounding import Arithmetic, flushed
from ..runtime.surgery import with_inputs
from .answer import Asked
from .bounds import rounding_at
from .evidence import Evidence
from .graph import Graph
from .interior import LeftOutError, interior, require_comparable, work_of
from .neighbours import Neighbour
from .region import Survey
from .scope import Scope
from .verify import over
from .wide import Wide

_SECONDS = 30.0  # that evaluating in float64 may take, by the estimate


@dataclass(frozen=True)
class Inside:
    """The model in float64 at x and at points of its region."""

    evaluator: str
    steps: Array  # (P, N): z - x
    moved: Array  # (P, all outputs): F(z) - F(x)


def evaluated_inside(
    graph: Graph,
    scope: Scope,
    survey: Survey,
    asked: Asked,
    rounding: Array,
    dtype: DTypeLike,
    count: int,
) -> Inside:
    """Evaluate a model in float64 at x and at points inside its region.

    Args:
        graph: the model, with one way through it.
        scope: the part of it that is explained.
        survey: the geometry of the region at x.
        asked: the question.
        rounding: (K,), what rounding in the model's own type may do at x.
        dtype: that the map is composed in.
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
    if not np.isfinite(answers).all():
        raise LeftOutError("the model's values leave the range of float64 inside the region")
    apart = np.abs(answers[0, rows] - trace.answered(program.outputs)[rows].astype(np.float64))
    if not (apart <= rounding + flushed(dtype)).all():
        raise LeftOutError(
            f"{evaluator} differs at x from what was observed by {apart.max():.1e}, more than by rounding"
        )
    return Inside(evaluator, points[1:] - points[0], answers[1:] - answers[0])


def compared_inside(found: Double, seen: Inside, wide: Wide) -> Double:
    """What the model in float64 says of W, against what rounding in float64 may do.

    Args:
        found: what is known already.
        seen: the model.
        wide: the map in float64.
    """
    program, trace, plan = wide.asked.program, wide.asked.trace, wide.asked.plan
    x = trace.stacked(program.inputs).astype(np.float64)
    blocks = unstacked(program, x + seen.steps)
    points = [{name: block[i] for name, block in blocks.items()} for i in range(len(seen.steps))]
    arithmetic = Arithmetic.of(np.float64) + Arithmetic.of(np.float64)  # the model's and the composition's
    evidence = Evidence(trace, [Neighbour(point, trace, {}) for point in points], 0, arithmetic)
    magnitudes = rounding_at(program, evidence, np.float64, arithmetic, plan.joints)
    at_x, *at_points = wide.rounding(magnitudes)
    bounds = np.array(at_points) + at_x + flushed(np.float64)
    if not np.isfinite(bounds).all():
        return replace(found, left_out="what rounding may do leaves the range of float64")
    moved = seen.moved[:, wide.asked.rows]
    off = (wide.W @ seen.steps.T).T - moved
    return replace(
        found,
        evaluator=seen.evaluator,
        points=len(seen.steps),
        in_region=float(np.abs(off).max(initial=0.0)),
        in_region_over_bound=over(wide.read(off), bounds),
        moved_over_bound=over(wide.read(moved), bounds),
    )
