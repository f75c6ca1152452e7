"""Verify: a map against onnxruntime, at x step by step and as a whole, and at fresh points of the region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime.certificate import Check
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram, Step
from ..runtime.rounding import step_rounding
from .compose import Composed


@dataclass(frozen=True)
class Observation:
    """What onnxruntime computes at one point: the stacked, flattened outputs of the asked rows, and z."""

    z: Array  # (N,)
    y: Array  # (K,)


def check_steps(program: LinearProgram, observed: Mapping[str, Array], u: float) -> Check:
    """Compare every step with onnxruntime, each from the inputs that onnxruntime gave it.

    Args:
        program: the network at x.
        observed: every tensor of the program at x, as onnxruntime computes it.
        u: unit roundoff of the coarser of the two arithmetics.
    """
    worst, worst_node, first_bad = 0.0, "", ""
    for step in program.steps:
        ratio = _step_ratio(step, observed, u)
        if ratio > worst:
            worst, worst_node = ratio, step.node
        if ratio > 1 and not first_bad:
            first_bad = step.node
    return Check(worst <= 1, worst, worst_node, first_bad, len(program.steps))


def _step_ratio(step: Step, observed: Mapping[str, Array], u: float) -> float:
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
    bound = 2 * step_rounding(step, inputs, u) + 2 * u * np.abs(ours) + np.finfo(np.float32).tiny
    ratio = float(np.max(np.abs(ours[0] - theirs.astype(dtype)) / bound[0], initial=0.0))
    return ratio if np.isfinite(ratio) else float("inf")


def check_points(
    composed: Composed, at_x: Observation, fresh: Sequence[Observation]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Compare W z + b with onnxruntime's outputs.

    Returns:
        (largest deviation, largest deviation / bound) at x, and over the fresh points.
    """
    results = [_deviation(composed, point, i) for i, point in enumerate([at_x, *fresh])]
    rest = results[1:] or [(0.0, 0.0)]
    return results[0], (max(d for d, _ in rest), max(r for _, r in rest))


def _deviation(composed: Composed, point: Observation, index: int) -> tuple[float, float]:
    predicted = composed.W.astype(np.float64, copy=False) @ point.z.astype(np.float64) + composed.b
    deviation = np.abs(predicted - point.y.astype(np.float64))
    bound = composed.rounding[index] + np.finfo(np.float32).tiny
    return float(deviation.max(initial=0.0)), float((deviation / bound).max(initial=0.0))
