"""Verify: a map against onnxruntime, at x step by step and as a whole, and at fresh points of the region."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..runtime.certificate import LISTED, Certificate, Check, Double, Level, StepCheck
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram, Step
from ..runtime.rounding import Arithmetic, flushed, step_rounding
from .bounds import abs_products
from .evidence import Evidence


class Deviation(NamedTuple):
    """How far W z + b is from F(z) at one place."""

    largest: float  # |W z + b - F(z)| of any row
    over_bound: float  # the largest over its bound
    moved: float = 0.0  # |F(z) - F(x)| over that bound: how far off W = 0 would be


def deviations(
    W: Any, b: Array, program: LinearProgram, rows: Array, evidence: Evidence, rounding: Array
) -> list[Deviation]:
    """Deviations of W z + b at each place, each row against its own bound.

    Args:
        W: (K, N), or a linear operator of that shape.
        b: (K,).
        program: the network at x.
        rows: flat output indices behind W's rows.
        evidence: with what onnxruntime computes.
        rounding: (P, K), what rounding may do to W z + b at each place.
    """
    found = []
    places = differences(W, b, program, rows, evidence)
    for (difference, moved, expanded), bounds in zip(places, rounding, strict=True):
        bounds = bounds + expanded + flushed(W.dtype)
        ratios = (over(each, bounds) for each in (difference, moved))
        found.append(Deviation(float(np.abs(difference).max(initial=0.0)), *ratios))
    return found


def over(deviations: ArrayLike, bounds: ArrayLike) -> float:
    """The largest |deviation| over its bound; NaN where a bound is not finite, as nothing is within that."""
    if not np.isfinite(bounds).all():
        return math.nan
    return float(np.max(np.abs(deviations) / np.asarray(bounds), initial=0.0))


def differences(
    W: Any, b: Array, program: LinearProgram, rows: Array, evidence: Evidence
) -> Iterator[tuple[Array, Array, Array]]:
    """At each place W z + b - F(z), F(z) - F(x), and how far the program's own outputs are from F(z).

    Each is (K,); the last is 0 where nothing was expanded.
    """
    points = np.stack([place.stacked(program.inputs) for place in evidence.places]).astype(np.float64)
    at_x = evidence.trace.answered(program.outputs)[rows].astype(np.float64)
    for place, ours in zip(evidence.places, _products(W, points), strict=True):
        y = place.answered(program.outputs)[rows].astype(np.float64)
        expanded = np.abs(y - place.stacked(program.outputs)[rows])
        yield ours + b.astype(W.dtype) - y, y - at_x, expanded


_ROWS = 256  # of W in float64 at a time
_VISIBLE = 0.01  # of what goes in or comes out: a deviation that nobody would call rounding


def says_nothing(W: Array, shares: Array, x: Array, y: Array, deviation: float, rounding: Array) -> bool:
    """Whether W x + b is visibly off, and rounding may be larger than all that it adds up.

    Being within such a bound proves nothing.

    Args:
        W: (K, N).
        shares: (steps, K), which sum to b.
        x: (N,).
        y: (K,), the outputs at x.
        deviation: largest |W x + b - y|.
        rounding: (K,), what rounding may do to W x + b.
    """
    if not visible(deviation, x, y):
        return False
    terms = abs_products(W, x[None])[0] + np.abs(shares).sum(axis=0)
    return float(rounding.max(initial=0.0)) > float(terms.max(initial=0.0))


def visible(deviation: float, x: Array, y: Array) -> bool:
    """Whether a deviation is more than 1 % of what goes in and comes out."""
    return bool(deviation > _VISIBLE * max(np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0)))


def _products(W: Any, points: Array) -> Array:
    """W z of each point in float64, (P, K), in blocks of rows: a second W in float64 may not fit."""
    if not isinstance(W, np.ndarray):
        return np.asarray(W @ points.T, np.float64).T
    products = np.empty((len(points), len(W)))
    for first in range(0, len(W), _ROWS):
        block = slice(first, first + _ROWS)
        products[:, block] = points @ W[block].astype(np.float64, copy=False).T
    return products


def certificate_of(
    program: LinearProgram,
    evidence: Evidence,
    compared: Sequence[Deviation],
    *,
    level: Level = "default",
    vacuous: bool = False,
    double: Double | None = None,
) -> Certificate:
    """The certificate of a map that has been compared at all places.

    Args:
        program: the network at x.
        evidence: that it was compared with.
        compared: from `deviations`, or from `combined_deviations` where the steps were not audited.
        level: that was asked for.
        vacuous: whether the bounds are too large to say anything.
        double: the comparison with the same composed in float64, if it was made.
    """
    table = () if evidence.audited is None else check_steps(program, evidence.audited, evidence.arithmetic)
    steps = None if evidence.audited is None else summed_up(table)
    at_x, around = compared[0], compared[1:] or [Deviation(0.0, 0.0)]
    in_region = Deviation(*(float(np.max(each)) for each in zip(*around, strict=True)))
    guards = [guard for _, guard in program.guarded]
    return Certificate(
        steps=steps,
        at_x=at_x.largest,
        at_x_over_bound=at_x.over_bound,
        in_region=in_region.largest,
        in_region_over_bound=in_region.over_bound,
        moved_over_bound=in_region.moved,
        points_tried=evidence.tried,
        points_held=len(evidence.fresh),
        ties=sum(guard.ties for guard in guards),
        guards=sum(guard.choice.size for guard in guards),
        reason=evidence.objection
        or _reason(steps, table, evidence.slopes, at_x, in_region)
        or (_reason_in_double(double) if double is not None else "")
        or (_VACUOUS if vacuous else ""),
        slopes=evidence.slopes,
        level=level,
        kind=str(program.kind),
        decided_by=_decided_by(program),
        by_step=table,
        double=double,
    )


def _decided_by(program: LinearProgram) -> tuple[str, ...]:
    """The first nodes that make an answer smooth or locally constant, in the graph's order."""
    if program.kind is Kind.LOCALLY_CONSTANT:
        nodes = [one.node for one in program.discrete] or [
            step.node for step in program.steps if not step.terms
        ]
    else:
        nodes = [step.node for step in program.steps if step.kind is program.kind is Kind.SMOOTH]
    return tuple(dict.fromkeys(nodes))[:LISTED]


_VACUOUS = (
    "W x + b is off by over 1 %, and rounding may be larger than all that it adds up, so nothing can be told "
    "from it; ask with dtype='float64'"
)


def _reason(
    steps: Check | None,
    table: Sequence[StepCheck],
    slopes: Check | None,
    at_x: Deviation,
    in_region: Deviation,
) -> str:
    """Why an answer is not verified, or nothing."""
    if steps is not None and not steps.passed:
        return f"node {steps.first_bad_node!r} is the first that differs from onnxruntime at x{_by(table)}"
    if slopes is not None and not slopes.passed:
        return f"node {slopes.first_bad_node!r} is the first whose slope is not that of its equation"
    if math.isnan(at_x.over_bound) or math.isnan(in_region.over_bound):
        where = "at x" if math.isnan(at_x.over_bound) else "at a fresh point of the region"
        return f"W z + b, or what rounding may do to it, leaves the range of float64 {where}"
    if not at_x.over_bound <= 1:
        though = ", though every step agrees" if steps is not None else ""
        return f"W x + b differs from onnxruntime's output at x{though}{_by_how_much(at_x)}"
    if not in_region.over_bound <= 1:
        far = _by_how_much(in_region)
        return f"W z + b differs from onnxruntime's output at a fresh point of the region{far}"
    return ""


def _reason_in_double(double: Double) -> str:
    """Why an answer is not verified by what float64 says of W, or nothing."""
    if double.W_over_bound is not None and not double.W_over_bound <= 1:
        return f"W differs from its float64 ({double.W_over_bound:.1e} times what rounding explains)"
    if not double.in_region_over_bound <= 1:
        far = _by_how_much(Deviation(double.in_region, double.in_region_over_bound))
        return f"W (z - x) differs from the model in float64 at a point of the region{far}"
    return ""


def _by(table: Sequence[StepCheck]) -> str:
    first = next(step for step in table if step.over_bound > 1)
    return f" (by {first.deviation:.1e}, and rounding explains {first.bound:.1e})"


def _by_how_much(found: Deviation) -> str:
    return f" (by up to {found.largest:.1e}, {found.over_bound:.1e} times what rounding explains)"


def check_steps(
    program: LinearProgram, observed: Mapping[str, Array], arithmetic: Arithmetic
) -> tuple[StepCheck, ...]:
    """Compare every step with onnxruntime, each from the inputs that onnxruntime gave it.

    Args:
        program: the network at x.
        observed: every tensor of the program at x, as onnxruntime computes it.
        arithmetic: the coarser of the two.

    Returns:
        One row for each step, in execution order.
    """
    return tuple(_checked(step, observed, arithmetic) for step in program.steps)


def summed_up(table: Sequence[StepCheck]) -> Check:
    """The worst row of a table of steps, and the first over its bound."""
    worst = max(table, key=lambda row: row.over_bound, default=None)
    first_bad = next((row.node for row in table if row.over_bound > 1), "")
    if worst is None or not worst.over_bound:
        return Check(True, 0.0, "", "", len(table))
    return Check(worst.over_bound <= 1, worst.over_bound, worst.node, first_bad, len(table))


def _checked(step: Step, observed: Mapping[str, Array], arithmetic: Arithmetic) -> StepCheck:
    """One step, at the entry that is nearest to its bound or farthest beyond."""
    infinite = StepCheck(step.node, step.op_type, step.output, math.inf, 0.0, math.inf)
    theirs = observed[step.output]
    if theirs.shape != step.shape:
        return infinite
    dtype = np.promote_types(np.float32, theirs.dtype) if theirs.dtype.kind == "f" else np.dtype(np.float32)
    inputs = {name: observed[name][None].astype(dtype) for name, _ in step.terms} or {
        "": np.zeros((1, 1), dtype)
    }
    ours = np.zeros((1, *step.shape), dtype)
    for name, L in step.terms:
        ours += L.apply(inputs[name])
    if step.offset is not None:
        ours += step.offset
    # Twice, for either side's sum, and once more for storing either result.
    bound = 2 * step_rounding(step, inputs, arithmetic) + 2 * arithmetic.u * np.abs(ours)
    bound += flushed(dtype)
    if step.slack is not None:
        bound = bound + step.slack
    if not ours.size:
        return StepCheck(step.node, step.op_type, step.output, 0.0, 0.0, 0.0)
    deviation = np.abs(ours[0] - theirs.astype(dtype)).ravel()
    bounds = np.broadcast_to(bound[0], step.shape).ravel()
    ratios = deviation / bounds
    entry = int(np.argmax(ratios))  # NaN comes first
    if not np.isfinite(ratios[entry]):
        return infinite
    found = float(deviation[entry]), float(bounds[entry]), float(ratios[entry])
    return StepCheck(step.node, step.op_type, step.output, *found)
