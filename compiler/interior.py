"""Points inside the region of x, known to be so by its geometry, and what rounding may do to a map there.

A step half-way to the first boundary stays inside, however thin the region is; in float64 the model moves
by far more than its rounding on the way. `runtime.in_double` evaluates it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..runtime.errors import UnsupportedError
from ..runtime.operator import unstacked, walked
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram
from ..runtime.rounding import Arithmetic, growth, running_errors, step_rounding
from .bounds import abs_products
from .graph import Graph, Node
from .neighbours import directions
from .plan import Plan
from .region import Survey
from .sweep import Magnitudes
from .trace import Trace

_MOST_BYTES = 16 << 20  # of points that are kept; at least one is
_ROWS = 4096  # of W in float64 at once

# Operators that an evaluator, or the model, computes in float32 when all else is in float64, and when so.
_IN_SINGLE: dict[str, Callable[[Node], bool]] = {
    # They interpolate between entries, and place them in the model's own type.
    "DeformConv": lambda node: True,
    "GridSample": lambda node: node.attributes.get("mode") != "nearest",
    "Resize": lambda node: node.attributes.get("mode", "nearest") != "nearest",
    "RoiAlign": lambda node: True,
    # onnxruntime has kernels for float64 that compute in float32: 1/n of the inverse, and all of Shrink.
    "DFT": lambda node: bool(node.attributes.get("inverse")),
    "Shrink": lambda node: True,
}


class LeftOutError(Exception):
    """The model cannot be compared in float64; the message says why."""


def require_comparable(graph: Graph, program: LinearProgram) -> None:
    """Refuse networks that are another one in float64.

    Raises:
        LeftOutError: saying why.
    """
    if program.kind is Kind.SMOOTH:  # Jacobians at other values, those that each type computes
        raise LeftOutError("smooth, so valid at x only")
    if program.discrete:
        raise LeftOutError("locally constant nodes, whose values are those that float32 gives")
    if any(step.slack is not None for step in program.steps):
        raise LeftOutError("it rounds to a grid, and W leaves that out")
    for node in graph.nodes:
        if node.op_type in _IN_SINGLE and _IN_SINGLE[node.op_type](node):
            raise LeftOutError(f"{node.op_type} is computed in float32")


def interior(survey: Survey, trace: Trace, count: int) -> Array:
    """Points inside the region of x, in float64, (count or fewer, N).

    Args:
        survey: the geometry of the region.
        trace: x.
        count: how many are wanted.

    Raises:
        LeftOutError: there is none, or nobody knows.
    """
    if survey.faces.unknown:
        raise LeftOutError(f"nobody knows where {survey.faces.unknown[0]!r} jumps")
    beyond = _beyond(survey)
    if beyond:
        raise LeftOutError(f"not comparable: units on the other side in float64: {beyond}")
    points = list(islice(_inside(survey, trace), count))
    if not points:
        raise LeftOutError("no direction from x stays inside the region")
    return np.array(points)


@dataclass(frozen=True)
class Points:
    """Where a model is to be compared in float64."""

    inside: Array  # (Q, N) in float64
    moved: Array  # (Q, all outputs): the map in float64 along z - x
    left_out: str = ""  # why Q = 0, if so


def points_of(
    graph: Graph, program: LinearProgram, trace: Trace, survey: Callable[[], Survey], count: int
) -> Points:
    """Points inside the region of x, or why there are none.

    Args:
        graph: the model.
        program: the network at x.
        trace: x.
        survey: makes the geometry of the region.
        count: how many are wanted; fewer where they would be large, but one.
    """
    most = max(1, _MOST_BYTES // max(1, program.in_size * np.dtype(np.float64).itemsize))
    try:
        require_comparable(graph, program)
        known = survey()
        inside = interior(known, trace, min(count, most))
    except (LeftOutError, UnsupportedError) as error:
        return Points(np.zeros((0, program.in_size)), np.zeros((0, program.out_size)), str(error))
    return Points(inside, walked(known.program, unstacked(known.program, inside - known.x), weight=0.0))


def directions_from(program: LinearProgram, trace: Trace) -> Iterator[Array]:
    """Directions of several families from x, (N,) each."""
    free = trace.free(program)
    for direction in islice(directions(free, seed=0), 0, None, 2):  # every other one is the opposite
        ahead = np.concatenate([np.ravel(direction[name]) for name in free]).astype(np.float64)
        if ahead.any():
            yield ahead


def work_of(program: LinearProgram) -> tuple[int, int]:
    """What evaluating a network once takes: multiply-adds, and windows of pools."""
    products = sum(L.work for step in program.steps for _, L in step.terms if L.fan_in > 1)
    return products, sum(step.size for step in program.steps if "Pool" in step.op_type)


def rounding_along(
    program: LinearProgram, x: Array, points: Array, arithmetic: Arithmetic, plan: Plan
) -> Magnitudes:
    """What rounding may do at each step on the way from x to points inside the region.

    Args:
        program: the network at x, in the type that W is composed in.
        x: (N,).
        points: z, (Q, N).
        arithmetic: that W was composed in.
        plan: that it was composed by.

    Returns:
        At 2 Q places: for each point what float64 may do to F(z) - F(x) and to the map along z - x; then for
        each what composing W may do along z - x, whatever the offsets are.
    """
    double, count = Arithmetic.of(np.float64), len(points)
    dtype = np.float32 if arithmetic.u > double.u else np.float64
    held = unstacked(program, (points - x).astype(dtype))
    places = unstacked(program, np.concatenate([x[None], points]).astype(dtype))
    errors: dict[str, Array] = {}
    along = program.walk(dict(held), [0.0] * count)
    at = program.walk(places, [1.0] * (1 + count))
    for (step, tangents), (_, values) in zip(along, at, strict=True):
        if step.output in plan.joints:
            held[step.output] = tangents[step.output]
        if not program.has_slot(step):
            continue
        at_x, at_points = np.split(step_rounding(step, values, double), [1])
        evaluating, composing = at_points + at_x, np.zeros_like(at_points)
        if step.terms:
            linear = replace(step, offset=None, offset_size=None)
            evaluating = evaluating + step_rounding(linear, tangents, double)
            composing = step_rounding(linear, tangents, arithmetic)
        errors[step.output] = np.concatenate([evaluating, composing])
    # What joins a plan's legs is part of composing alone.
    joined = {name: np.concatenate([np.zeros_like(value), value]) for name, value in held.items()}
    return Magnitudes(errors, joined, 2 * count)


def inside_bounds(rounding: Array, W: Array, points: Points, x: Array, rows: Array) -> Array:
    """Bounds on |W (z - x) - (F(z) - F(x))| in float64 at points inside the region, (Q, K).

    What W lost by being composed and stored in its own type is known along z - x: it is the difference from
    the same in float64. It counts as far as rounding explains it, so that a W that is wrong shows.

    Args:
        rounding: (2 Q, K), of what `rounding_along` gives.
        W: (K, N).
        points: z.
        x: (N,).
        rows: (K,) flat output indices behind W's rows.
    """
    evaluating, composing = np.split(rounding, 2)
    steps = points.inside - x
    sizes = abs_products(W, steps)
    lost = np.empty_like(composing)
    for first in range(0, len(W), _ROWS):
        block = slice(first, first + _ROWS)
        lost[:, block] = np.abs(steps @ W[block].astype(np.float64).T - points.moved[:, rows[block]])
    product = growth(W.shape[1], Arithmetic.of(np.float64).u) * sizes
    explained = composing + Arithmetic.of(W.dtype).u * sizes
    return np.asarray(evaluating + 2 * product + np.minimum(lost, explained) + np.finfo(np.float32).tiny)


def _beyond(survey: Survey) -> int:
    """How many half-spaces x is outside of in float64, by more than its rounding; the model is another there.

    The pattern is the one that was observed in the model's own type.
    """
    faces, double = survey.faces, Arithmetic.of(np.float64)
    if not faces.count:
        return 0
    wanted = {face.step.output for face in faces.faces}
    count = 0
    block = unstacked(survey.program, survey.x[None])
    for step, values, errors in running_errors(faces.program, block, double):
        if step.output in wanted:
            count += int(np.count_nonzero(values[step.output] < -errors[step.output]))
    return count


def _inside(survey: Survey, trace: Trace) -> Iterator[Array]:
    """Points half-way from x to the first boundary, (N,) each."""
    for ahead in directions_from(survey.program, trace):
        for way, crossing in zip((ahead, -ahead), survey.along(ahead), strict=True):
            point = survey.x + min(1.0, 0.5 * crossing.t) * way
            if (point != survey.x).any():
                yield point
