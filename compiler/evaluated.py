"""W in float64 against the model evaluated in float64 by onnx's reference evaluator, within x's region.

The region of a large network is often thinner than what float32 resolves: between two of its points the
outputs move by less than they are rounded by, and agreement there says little of W. In float64 the same points
are far apart. They lie in the region by its half-spaces: half way from x to where a random ray first leaves it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.certificate import DoubleRegion
from ..runtime.errors import IlinError, ModelError
from ..runtime.operator import unstacked
from ..runtime.primitives import Array, flat
from ..runtime.program import LinearProgram
from ..runtime.rounding import Arithmetic
from ..runtime.session import ReferenceSession
from ..runtime.surgery import with_inputs
from ..runtime.surroundings import embedded
from ..runtime.widened import as_float64, widened
from .bounds import rounding_bounds
from .compose import Composed
from .engine import Engine
from .graph import Graph
from .plan import Plan
from .scope import Scope
from .trace import Trace
from .verify import rounding_on

if TYPE_CHECKING:
    from .region import Survey

_POINTS = 2
_RATE = 5e7  # multiply-adds a second of the reference evaluator, whose convolutions are loops over numpy
_SECONDS = 60.0  # for all runs of it
_ROUNDED = {"Erf", "Gelu"}  # which it computes in float32
_DOUBLE = np.dtype(np.float64)


def region_in_double(
    survey: Survey,
    graph: Graph,
    scope: Scope,
    trace: Trace,
    program: LinearProgram,
    rows: Array,
    wide: Composed,
    plan: Plan,
    engine: Engine,
) -> DoubleRegion:
    """Compare a map in float64 with the model in float64, at x and at points of its region.

    Args:
        survey: the region.
        graph: the model, written out for the way of x where it has several.
        scope: what is explained of it.
        trace: x.
        program: the network at x, lowered in float64.
        rows: flat output indices behind the map's rows.
        wide: the map, composed in float64.
        plan: that it was composed by.
        engine: likewise.
    """
    seconds = (1 + _POINTS) * sum(step.fan_in * step.size for step in program.steps) / _RATE
    if seconds > _SECONDS:
        return _left_out(f"onnx's reference evaluator would take about {seconds:.0f} s")
    rounded = sorted(_ROUNDED.intersection(node.op_type for node in scope.nodes))
    if rounded:
        return _left_out(f"onnx's reference evaluator computes {rounded[0]} in float32")
    points = np.stack([survey.x, *_points_within(survey)])
    if len(points) == 1:
        return _left_out("no ray from x stays in the region: x lies on its boundary")
    try:
        values = _evaluated(graph, scope, trace, program, points)[:, rows]
    except IlinError as error:
        return _left_out(str(error))
    arithmetic = Arithmetic.of(_DOUBLE)
    magnitudes = rounding_on(program, unstacked(program, points), arithmetic + arithmetic, plan.joints)
    bounds = rounding_bounds(program, rows, wide, plan, engine, _DOUBLE, magnitudes)
    off = np.abs(points @ np.asarray(wide.W).T + wide.b - values)
    moved = np.abs(values[1:] - values[0]) / (bounds[1:] + np.finfo(_DOUBLE).tiny)
    return DoubleRegion(
        points=len(points) - 1,
        deviation=float(off.max(initial=0.0)),
        over_bound=float((off / (bounds + np.finfo(_DOUBLE).tiny)).max(initial=0.0)),
        moved_over_bound=float(moved.max(initial=0.0)),
    )


def _left_out(why: str) -> DoubleRegion:
    return DoubleRegion(0, 0.0, 0.0, 0.0, why)


def _points_within(survey: Survey) -> list[Array]:
    """Points half way from x to the boundary, along random lines through x; fewer where x lies on it."""
    random = np.random.default_rng(0)
    size = max(float(np.abs(survey.x).max(initial=0.0)), 1.0)
    found = []
    for _ in range(_POINTS):
        direction = size * random.standard_normal(survey.x.size)
        ahead, behind = survey.along(direction)
        t = ahead.t if ahead.t >= behind.t else -behind.t
        if t:
            found.append(survey.x + direction * (t / 2 if math.isfinite(t) else math.copysign(1, t)))
    return found


def _evaluated(graph: Graph, scope: Scope, trace: Trace, program: LinearProgram, points: Array) -> Array:
    """The stacked outputs at points, (P, all outputs), every tensor on the way in float64.

    Raises:
        ModelError: the evaluator does not run the model, or not in float64.
        OutputError: the model is over protobuf's 2 GB.
    """
    made = [name for node in scope.nodes for name in node.outputs if name in scope.active]
    wanted = dict.fromkeys([*made, *(name for name, _ in program.outputs)])
    given = {put.name for put in graph.inputs}
    inner = {name: _DOUBLE for name in scope.inputs if name not in given}
    names = [
        name for name in wanted if name not in given and name not in inner and name not in scope.constants
    ]
    proto = as_float64(embedded(graph.proto, graph.surroundings.folder))
    session = ReferenceSession(with_inputs(proto, inner) if inner else proto, names)
    found = []
    for point in points:
        here = {name: part[0] for name, part in unstacked(program, point[None]).items()}
        feeds = {name: widened(value) for name, value in {**trace.feeds, **here}.items()}
        found.append(_stacked(program, {**scope.constants, **feeds, **_in_double(session.run(feeds))}))
    return np.stack(found)


def _in_double(values: Mapping[str, Any]) -> Mapping[str, Array]:
    for name, value in values.items():
        if value.dtype.kind == "f" and value.dtype != _DOUBLE:
            raise ModelError(f"onnx's reference evaluator computes {name!r} in {value.dtype}")
    return values


def _stacked(program: LinearProgram, values: Mapping[str, Array]) -> Array:
    return np.concatenate([flat(values[name][None])[0] for name, _ in program.outputs])
