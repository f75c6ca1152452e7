"""Points inside the region of x, known to be so by its geometry, where the model is evaluated in float64.

A step half-way to the first boundary stays inside, however thin the region is; in float64 the model moves
by far more than its rounding on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.certificate import LISTED
from ..runtime.errors import UnsupportedError
from ..runtime.in_double import seconds
from ..runtime.operator import unstacked, walked
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram
from ..runtime.record import is_near
from ..runtime.rounding import Arithmetic, running_errors
from .graph import Graph, Node
from .neighbours import directions
from .trace import Trace

if TYPE_CHECKING:
    from .region import Survey

_MOST_BYTES = 16 << 20  # of points that are kept; at least one is
_SECONDS = 10.0  # that evaluating a model once may take, by the estimate

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
    """A base and points around it that are inside the region in float64, (1 + count or fewer, N).

    The base is x, unless float64 puts units on the other side there: then the nearest point on theirs. Each
    of the others is half-way from it to the first boundary along a direction.

    Args:
        survey: the geometry of the region.
        trace: x.
        count: how many points are wanted beside the base.

    Raises:
        LeftOutError: there is none, or nobody knows.
    """
    if survey.faces.unknown:
        raise LeftOutError(f"nobody knows where {survey.faces.unknown[0]!r} jumps")
    base, margins = _base(survey, trace)
    found = [base, *islice(_around(survey, trace, base, margins), count)]
    if len(found) == 1:
        raise LeftOutError("no direction from x stays inside the region")
    return np.array(found)


@dataclass(frozen=True)
class Points:
    """Where a model is to be compared in float64."""

    base: Array  # (N,) in float64: x, or the nearest point that float64 puts inside
    inside: Array  # (Q, N) in float64
    moved: Array  # (Q, all outputs): the map in float64 along the way from the base
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
        expected = seconds(*work_of(program))
        if expected > _SECONDS:
            raise LeftOutError(f"evaluating the model once would take about {expected:.0f} s")
        known = survey()
        base, *inside = interior(known, trace, min(count, most))
        moved = walked(known.program, unstacked(known.program, np.array(inside) - base), weight=0.0)
        if not np.isfinite(moved).all():
            raise LeftOutError("the model's values leave the range of float64 inside the region")
    except (LeftOutError, UnsupportedError) as error:
        x = trace.stacked(program.inputs).astype(np.float64)
        return Points(x, np.zeros((0, program.in_size)), np.zeros((0, program.out_size)), str(error))
    return Points(base, np.array(inside), moved)


def directions_from(program: LinearProgram, trace: Trace, seed: int = 0) -> Iterator[Array]:
    """Directions of several families from x, (N,) each."""
    free = trace.free(program)
    for direction in islice(directions(free, seed), 0, None, 2):  # every other one is the opposite
        ahead = np.concatenate([np.ravel(direction[name]) for name in free]).astype(np.float64)
        if ahead.any():
            yield ahead


def work_of(program: LinearProgram) -> tuple[int, int]:
    """What evaluating a network once takes: multiply-adds, and windows of pools."""
    products = sum(L.work for step in program.steps for _, L in step.terms if L.fan_in > 1)
    return products, sum(step.size for step in program.steps if "Pool" in step.op_type)


def _base(survey: Survey, trace: Trace) -> tuple[Array, Array]:
    """X, or the nearest point on the side of the units that float64 puts on the other; the margins there.

    The pattern is the one that was observed in the model's own type.
    """
    margins, errors = _margins(survey, survey.x)
    beyond = np.flatnonzero(margins < -errors)
    if not len(beyond):
        return survey.x, np.maximum(margins, 0.0)
    told = f"units on the other side in float64: {len(beyond)}"
    if len(beyond) > LISTED:
        raise LeftOutError(told)
    # As far inside as x is outside: the smallest step of which each of their margins grows by as much.
    step, *_ = np.linalg.lstsq(survey.slopes(beyond), -2 * margins[beyond])
    base = survey.x + step
    margins, errors = _margins(survey, base)
    apart = unstacked(survey.program, step[None])
    near = all(is_near(trace.values[name], apart[name][0]) for name, _ in survey.program.inputs)
    if not near or (margins < -errors).any():
        raise LeftOutError(f"{told}, and no point near x is on theirs")
    return base, np.maximum(margins, 0.0)


def _margins(survey: Survey, z: Array) -> tuple[Array, Array]:
    """The value of every half-space at a point, and what float64 may round of it, (rows,) each."""
    faces = survey.faces
    found: dict[str, tuple[Array, Array]] = {face.step.output: (z[:0], z[:0]) for face in faces.faces}
    block = unstacked(survey.program, z[None])
    if found:
        for step, values, errors in running_errors(faces.program, block, Arithmetic.of(np.float64)):
            if step.output in found:
                found[step.output] = values[step.output].ravel(), errors[step.output].ravel()
    pairs = [found[face.step.output] for face in faces.faces]
    margins, errors_of = (np.concatenate([z[:0], *(pair[i] for pair in pairs)]) for i in (0, 1))
    return margins, errors_of


def _around(survey: Survey, trace: Trace, base: Array, margins: Array) -> Iterator[Array]:
    """Points half-way from the base to the first boundary, each the way that goes farther, (N,) each."""
    for ahead in (way for seed in (0, 1) for way in directions_from(survey.program, trace, seed)):
        speed = survey.values(ahead[None], weight=0.0)[0]
        ways = [survey.times(margins, closing) for closing in (-speed, speed)]
        farther = int(ways[1].min(initial=np.inf) > ways[0].min(initial=np.inf))
        step = min(1.0, 0.5 * survey.first(ways[farther])[0]) * (-ahead if farther else ahead)
        if (base + step != base).any() and np.isfinite(base + step).all():
            yield base + step
