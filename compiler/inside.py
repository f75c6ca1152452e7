"""W against the model in float64, at points inside the region: the check that has power over slopes.

In float32 many a region is thinner than the rounding of what the model computes in it, and no run of the
model tells its slopes apart. Rounding in float64 is 10⁹ times smaller, and the region as wide. The model is
evaluated by what nobody here wrote: onnxruntime where it has all kernels in float64, else onnx's
reference evaluator. The points are inside by geometry: half-way to the first boundary along a direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..runtime.certificate import Double
from ..runtime.errors import ModelError
from ..runtime.operator import unstacked
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from ..runtime.rounding import Arithmetic
from ..runtime.session import ReferenceSession, Runner, Session
from ..runtime.surgery import with_inputs
from ..runtime.surroundings import Surroundings, embedded
from ..runtime.widen import as_float64, widened
from .answer import Asked
from .bounds import rounding_at
from .evidence import Evidence
from .graph import Graph
from .neighbours import Neighbour, directions
from .region import Survey
from .scope import Scope
from .trace import Trace
from .wide import Wide

_SECONDS = 30.0  # that evaluating in float64 may take, by the estimate
# By measurement on one core: a multiply-add of the reference evaluator's convolutions, and a window of its
# pools, which are loops in Python.
_PER_PRODUCT, _PER_WINDOW = 3e-9, 2e-5

# Operators whose weights come out of float32 arithmetic, in the model or in an evaluator: of other weights in
# float64, the answer is another one.
_IN_SINGLE = frozenset(
    {
        "AffineGrid",
        "CropAndResize",
        "DFT",
        "STFT",
        "DeformConv",
        "GridSample",
        "MaxRoiPool",
        "Resize",
        "RoiAlign",
        "Shrink",
        "Upsample",
    }
)


@dataclass(frozen=True)
class Inside:
    """The model in float64 at x and at points of its region."""

    evaluator: str
    steps: Array  # (P, N): z - x
    moved: Array  # (P, all outputs): F(z) - F(x)


class LeftOutError(Exception):
    """The model cannot be compared in float64; the message says why."""


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
    if program.discrete:
        raise LeftOutError("locally constant nodes, whose values are those that float32 gives")
    single = next((node for node in graph.nodes if node.op_type in _IN_SINGLE), None)
    if single is not None:
        raise LeftOutError(f"{single.op_type} takes its weights in float32")
    seconds = (count + 1) * _seconds(program)
    if seconds > _SECONDS:
        raise LeftOutError(f"it would take about {seconds:.0f} s")
    if survey.faces.unknown:
        raise LeftOutError(f"nobody knows where {survey.faces.unknown[0]!r} jumps")
    steps = np.array(list(islice(_steps(survey, trace), count)))
    if not len(steps):
        raise LeftOutError("no direction from x stays inside the region")
    points = [survey.x, *(survey.x + steps)]
    feeds = {name: widened(value) for name, value in trace.feeds.items()}
    blocks = [{name: part[0] for name, part in unstacked(program, z[None]).items()} for z in points]
    scope = replace(scope, constants={**scope.constants, **_held(scope, trace)})
    evaluator, answers = _answers(graph, scope, program, [{**feeds, **block} for block in blocks])
    apart = np.abs(answers[0, rows] - trace.answered(program.outputs)[rows].astype(np.float64))
    if not (apart <= rounding + np.finfo(np.float32).tiny).all():
        raise LeftOutError(
            f"{evaluator} differs at x from what was observed by {apart.max():.1e}, more than by rounding"
        )
    return Inside(evaluator, np.array(points[1:]) - survey.x, answers[1:] - answers[0])


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
    bounds = np.array(at_points) + at_x + np.finfo(np.float64).tiny
    moved = seen.moved[:, wide.asked.rows]
    off = (wide.W @ seen.steps.T).T - moved
    return replace(
        found,
        evaluator=seen.evaluator,
        points=len(seen.steps),
        in_region=float(np.abs(off).max(initial=0.0)),
        in_region_over_bound=float((np.abs(wide.read(off)) / bounds).max(initial=0.0)),
        moved_over_bound=float((np.abs(wide.read(moved)) / bounds).max(initial=0.0)),
    )


def _held(scope: Scope, trace: Trace) -> dict[str, Array]:
    """What was observed that x does not move, such as gates made of other inputs: constants here, too.

    The model computes them in its own type, and what the network at x is made of are those values.
    """
    moved = {*scope.active, *trace.feeds}
    return {name: value for name, value in trace.values.items() if name not in moved}


def straight_from(program: LinearProgram, trace: Trace) -> Iterator[Array]:
    """Directions of several families from x, (N,) each."""
    free = trace.free(program)
    for direction in islice(directions(free, seed=0), 0, None, 2):  # every other one is the opposite
        ahead = np.concatenate([np.ravel(direction[name]) for name in free]).astype(np.float64)
        if ahead.any():
            yield ahead


def _seconds(program: LinearProgram) -> float:
    """A rough estimate of what the reference evaluator takes for one point."""
    products = sum(L.work for step in program.steps for _, L in step.terms if L.fan_in > 1)
    windows = sum(step.size for step in program.steps if "Pool" in step.op_type)
    return products * _PER_PRODUCT + windows * _PER_WINDOW


def _steps(survey: Survey, trace: Trace) -> Iterator[Array]:
    """Steps from x that stay inside its region, half-way to the first boundary, (N,) each."""
    for ahead in straight_from(survey.program, trace):
        for way, crossing in zip((ahead, -ahead), survey.along(ahead), strict=True):
            step = min(1.0, 0.5 * crossing.t) * way
            if (survey.x + step != survey.x).any():
                yield step


def _answers(
    graph: Graph, scope: Scope, program: LinearProgram, feeds: list[Mapping[str, Array]]
) -> tuple[str, Array]:
    """The first that evaluates the model in float64, and its outputs there, (points, all outputs)."""
    folder = graph.surroundings.folder
    proto = as_float64(embedded(graph.proto, folder), scope.constants)
    inner = set(scope.inputs) - {put.name for put in graph.inputs}
    if inner:
        proto = with_inputs(proto, dict.fromkeys(inner, np.dtype(np.float64)))
    wanted = [name for name, _ in program.outputs if name not in scope.constants]
    alone = Surroundings(None, graph.surroundings.custom_ops)
    runs: dict[str, Callable[[], Runner]] = {
        "onnxruntime": lambda: Session(proto, wanted, surroundings=alone),
        "onnx's reference evaluator": lambda: ReferenceSession(proto, wanted),
    }
    for name, prepared in runs.items():
        try:
            runner = prepared()
            found = [_outputs(runner, program, scope.constants, point) for point in feeds]
        except ModelError as error:
            refused = error
        else:
            return name, np.array(found)
    raise LeftOutError(f"nothing evaluates it in float64: {refused}")


def _outputs(
    runner: Runner, program: LinearProgram, constants: Mapping[str, Array], feeds: Mapping[str, Array]
) -> Array:
    values = {**constants, **runner.run(feeds)}
    for name in runner.outputs:
        if values[name].dtype != np.float64:
            raise ModelError(f"it computes {name!r} in {values[name].dtype}")
    return np.concatenate([np.ravel(values[name]).astype(np.float64) for name, _ in program.outputs])
