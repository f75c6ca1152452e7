"""Verify: a map against onnxruntime, at x step by step and as a whole, and at fresh points of the region."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..runtime.certificate import Certificate, Check
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram, Step
from ..runtime.rounding import Arithmetic, step_rounding
from .bounds import abs_products
from .neighbours import Neighbour
from .sweep import Magnitudes
from .trace import Trace


def rounding_at(
    program: LinearProgram,
    trace: Trace,
    fresh: Sequence[Neighbour],
    dtype: DTypeLike,
    arithmetic: Arithmetic,
    kept: Collection[str] = (),
) -> Magnitudes:
    """What rounding may do at each step, at x and all fresh points at once.

    Args:
        program: the network at x.
        trace: x.
        fresh: points of x's region.
        dtype: floating type of the composition.
        arithmetic: the model's and the composition's, added.
        kept: tensors whose values are wanted besides.
    """
    points = [trace.free(program), *(neighbour.point for neighbour in fresh)]
    block = {name: np.stack([point[name] for point in points]).astype(dtype) for name, _ in program.inputs}
    errors: dict[str, Array] = {}
    carried: dict[str, Array] = {}  # allowances at steps that do not round, on their way to one that does
    held = dict(block)
    for step, values in program.walk(block, [1.0] * len(points)):
        if step.output in kept:
            held[step.output] = values[step.output]
        extra = _allowances(step, fresh, carried)
        if program.has_slot(step):
            error = step_rounding(step, values, arithmetic)
            if step.slack is not None:
                error = error + step.slack
            errors[step.output] = error if extra is None else error + extra
        elif extra is not None:
            carried[step.output] = extra
    return Magnitudes(errors, held, len(points))


def _allowances(step: Step, fresh: Sequence[Neighbour], carried: Mapping[str, Array]) -> Array | None:
    """What units at the edge of rounding add to a step's output, at x (nothing) and the fresh points."""
    here = any(step.output in neighbour.allowance for neighbour in fresh)
    if not here and not any(name in carried for name, _ in step.terms):
        return None
    extra = np.zeros((1 + len(fresh), *step.shape))
    for index, neighbour in enumerate(fresh, start=1):
        if step.output in neighbour.allowance:
            extra[index] += neighbour.allowance[step.output][0]
    for name, L in step.terms:
        if name in carried:
            extra += L.magnitude().apply(carried[name])
    return extra


@dataclass(frozen=True)
class Evidence:
    """What a map is compared with: gathered at x and at fresh points of its region."""

    trace: Trace  # x
    fresh: Sequence[Neighbour]
    tried: int  # points tried to find them
    magnitudes: Magnitudes  # of rounding errors at all of these points
    audited: Mapping[str, Array]  # every tensor of the program at x, as onnxruntime computes it
    arithmetic: Arithmetic  # the coarser of the model's and the composition's
    slopes: Check | None = None  # of smooth steps
    objection: str = ""  # why what was looked at is not the model, if so

    @property
    def places(self) -> list[Trace]:
        """X and the fresh points."""
        return [self.trace, *(neighbour.trace for neighbour in self.fresh)]


def deviations(
    W: Any, b: Array, program: LinearProgram, rows: Array, evidence: Evidence, rounding: Array
) -> list[tuple[float, float]]:
    """Largest |W z + b - F(z)| at each place, and the same over its bound.

    Args:
        W: (K, N), or a linear operator of that shape.
        b: (K,).
        program: the network at x.
        rows: flat output indices behind W's rows.
        evidence: with what onnxruntime computes.
        rounding: (P, K), what rounding may do to W z + b at each place.
    """
    found = []
    for place, bounds in zip(evidence.places, rounding, strict=True):
        z = place.stacked(program.inputs).astype(np.float64)
        y = place.answered(program.outputs)[rows].astype(np.float64)
        bounds = bounds + np.abs(y - place.stacked(program.outputs)[rows])  # 0 where nothing was expanded
        difference = np.abs(_product(W, z) + b.astype(W.dtype) - y)
        ratios = difference / (bounds + np.finfo(np.float32).tiny)
        found.append((float(difference.max(initial=0.0)), float(ratios.max(initial=0.0))))
    return found


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
    if not deviation > _VISIBLE * max(np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0)):
        return False
    terms = abs_products(W, x[None])[0] + np.abs(shares).sum(axis=0)
    return float(rounding.max(initial=0.0)) > float(terms.max(initial=0.0))


def _product(W: Any, z: Array) -> Array:
    """W z in float64, in blocks of rows: a second W in float64 may not fit."""
    if not isinstance(W, np.ndarray):
        return np.asarray(W @ z, np.float64)
    product = np.empty(len(W))
    for first in range(0, len(W), 4096):
        block = slice(first, first + 4096)
        product[block] = W[block].astype(np.float64, copy=False) @ z
    return product


def certificate_of(
    program: LinearProgram,
    evidence: Evidence,
    compared: Sequence[tuple[float, float]],
    *,
    vacuous: bool = False,
) -> Certificate:
    """The certificate of a map that has been compared at all places.

    Args:
        program: the network at x.
        evidence: that it was compared with.
        compared: from `deviations`.
        vacuous: whether the bounds are too large to say anything.
    """
    steps = check_steps(program, evidence.audited, evidence.arithmetic)
    at_x, around = compared[0], compared[1:] or [(0.0, 0.0)]
    in_region = (max(d for d, _ in around), max(r for _, r in around))
    guards = [guard for _, guard in program.guarded]
    return Certificate(
        steps=steps,
        at_x=at_x[0],
        at_x_over_bound=at_x[1],
        in_region=in_region[0],
        in_region_over_bound=in_region[1],
        points_tried=evidence.tried,
        points_held=len(evidence.fresh),
        ties=sum(guard.ties for guard in guards),
        guards=sum(guard.choice.size for guard in guards),
        reason=evidence.objection
        or _reason(steps, evidence.slopes, at_x[1], in_region[1])
        or (_VACUOUS if vacuous else ""),
        slopes=evidence.slopes,
    )


_VACUOUS = (
    "W x + b is off by over 1 %, and rounding may be larger than all that it adds up, so nothing can be told "
    "from it; ask with dtype='float64'"
)


def _reason(steps: Check, slopes: Check | None, at_x: float, in_region: float) -> str:
    """Why an answer is not verified, or nothing."""
    if not steps.passed:
        return f"node {steps.first_bad_node!r} is the first that differs from onnxruntime at x"
    if slopes is not None and not slopes.passed:
        return f"node {slopes.first_bad_node!r} is the first whose slope is not that of its equation"
    if not at_x <= 1:
        return "W x + b differs from onnxruntime's output at x, though every step agrees"
    if not in_region <= 1:
        return "W z + b differs from onnxruntime's output at a fresh point of the region"
    return ""


def check_steps(program: LinearProgram, observed: Mapping[str, Array], arithmetic: Arithmetic) -> Check:
    """Compare every step with onnxruntime, each from the inputs that onnxruntime gave it.

    Args:
        program: the network at x.
        observed: every tensor of the program at x, as onnxruntime computes it.
        arithmetic: the coarser of the two.
    """
    worst, worst_node, first_bad = 0.0, "", ""
    for step in program.steps:
        ratio = _step_ratio(step, observed, arithmetic)
        if ratio > worst:
            worst, worst_node = ratio, step.node
        if ratio > 1 and not first_bad:
            first_bad = step.node
    return Check(worst <= 1, worst, worst_node, first_bad, len(program.steps))


def _step_ratio(step: Step, observed: Mapping[str, Array], arithmetic: Arithmetic) -> float:
    """Largest deviation of one step over its bound."""
    theirs = observed[step.output]
    if theirs.shape != step.shape:
        return float("inf")
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
    bound += np.finfo(np.float32).tiny
    if step.slack is not None:
        bound = bound + step.slack
    ratio = float(np.max(np.abs(ours[0] - theirs.astype(dtype)) / bound[0], initial=0.0))
    return ratio if np.isfinite(ratio) else float("inf")
