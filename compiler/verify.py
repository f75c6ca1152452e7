"""Verify: a map against onnxruntime, at x step by step and as a whole, and at fresh points of the region."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from ..runtime.certificate import Certificate, Check
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram, Step
from ..runtime.rounding import Arithmetic, step_rounding
from .compose import Composed
from .region import Neighbour
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


def certify(
    program: LinearProgram,
    composed: Composed,
    rounding: Array,
    rows: Array,
    trace: Trace,
    audited: Mapping[str, Array],
    fresh: Sequence[Neighbour],
    tried: int,
    arithmetic: Arithmetic,
) -> Certificate:
    """Compare everything with onnxruntime.

    Args:
        program: the network at x.
        composed: its W and b.
        rounding: (P, K), what rounding may do to W z + b at x and at the fresh points.
        rows: flat output indices behind W's rows.
        trace: x.
        audited: every tensor of the program at x, as onnxruntime computes it.
        fresh: points of x's region, with what onnxruntime computes there.
        tried: how many points were tried to find them.
        arithmetic: the coarser of the model's and the composition's.
    """
    there = [trace, *(neighbour.trace for neighbour in fresh)]
    deviations = [
        deviation(composed, program, rows, place, bound) for place, bound in zip(there, rounding, strict=True)
    ]
    return certificate_of(program, deviations, audited, len(fresh), tried, arithmetic)


def certificate_of(
    program: LinearProgram,
    deviations: Sequence[tuple[float, float]],
    audited: Mapping[str, Array],
    held: int,
    tried: int,
    arithmetic: Arithmetic,
) -> Certificate:
    """The certificate, where the map has been compared already.

    Args:
        program: the network at x.
        deviations: of the map, and the same over their bounds, at x and at each fresh point.
        audited: every tensor of the program at x, as onnxruntime computes it.
        held: how many fresh points there are.
        tried: how many points were tried to find them.
        arithmetic: the coarser of the model's and the composition's.
    """
    steps = check_steps(program, audited, arithmetic)
    at_x, around = deviations[0], deviations[1:] or [(0.0, 0.0)]
    in_region = (max(d for d, _ in around), max(r for _, r in around))
    guards = [guard for step in program.steps for guard in step.guards]
    return Certificate(
        steps=steps,
        at_x=at_x[0],
        at_x_over_bound=at_x[1],
        in_region=in_region[0],
        in_region_over_bound=in_region[1],
        points_tried=tried,
        points_held=held,
        ties=sum(guard.ties for guard in guards),
        guards=sum(guard.choice.size for guard in guards),
        reason=_reason(steps, at_x[1], in_region[1]),
    )


def deviation(
    composed: Composed, program: LinearProgram, rows: Array, place: Trace, rounding: Array
) -> tuple[float, float]:
    """Largest |W z + b - F(z)| at one point, and the same over its bound."""
    z = place.stacked(program.inputs).astype(np.float64)
    y = place.stacked(program.outputs)[rows].astype(np.float64)
    W, predicted = composed.W, composed.b.astype(composed.W.dtype).astype(np.float64)
    for first in range(0, len(W), 4096):  # in blocks of rows: a second W in float64 may not fit
        part = slice(first, first + 4096)
        predicted[part] += W[part].astype(np.float64, copy=False) @ z
    deviation = np.abs(predicted - y)
    bound = rounding + np.finfo(np.float32).tiny
    return float(deviation.max(initial=0.0)), float((deviation / bound).max(initial=0.0))


def _reason(steps: Check, at_x: float, in_region: float) -> str:
    """Why an answer is not verified, or nothing."""
    if not steps.passed:
        return f"node {steps.first_bad_node!r} is the first that differs from onnxruntime at x"
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
    ratio = float(np.max(np.abs(ours[0] - theirs.astype(dtype)) / bound[0], initial=0.0))
    return ratio if np.isfinite(ratio) else float("inf")
