"""Slopes of smooth steps against differences of the same steps, in float64.

At x a step's value says nothing about its Jacobian: the offset f(u) - J u makes any J look right there. So
the operator's equation f, which the values at x test against onnxruntime, is evaluated beside u, and J is
compared with its differences.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..runtime.certificate import Check
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram, Step
from ..runtime.rounding import Arithmetic, growth
from .lower import relowered
from .scope import Scope, Verdict, varying_outputs
from .trace import Trace

_STEP = 2.0**-16  # relative to the size of what is moved: balances f's curvature and float64's rounding
_DOUBLE = Arithmetic.of(np.float64)


def check_slopes(
    scope: Scope, program: LinearProgram, trace: Trace, observed: Mapping[str, Array], arithmetic: Arithmetic
) -> Check | None:
    """Compare the Jacobian of every smooth step with central differences along a random direction.

    Args:
        scope: with the nodes behind the steps.
        program: the network at x.
        trace: x.
        observed: every tensor of the program at x, as onnxruntime computes it.
        arithmetic: that the Jacobians were computed in.

    Returns:
        The comparison; None where no step is smooth, or all that are hold something (frozen).
    """
    steps = {step.output: step for step in program.steps if step.kind is Kind.SMOOTH and not step.frozen}
    if not steps:
        return None
    random = np.random.default_rng(0)
    worst, worst_node, first_bad = 0.0, "", ""
    for use in scope.uses:
        mine = [steps[name] for name in varying_outputs(use.node) if name in steps]
        for ratio in _ratios(use, mine, scope, trace, observed, arithmetic, random) if mine else ():
            if ratio > worst:
                worst, worst_node = ratio, use.node.name
            if ratio > 1 and not first_bad:
                first_bad = use.node.name
    return Check(worst <= 1, worst, worst_node, first_bad, len(steps))


def _ratios(
    use: Verdict,
    steps: list[Step],
    scope: Scope,
    trace: Trace,
    observed: Mapping[str, Array],
    arithmetic: Arithmetic,
    random: np.random.Generator,
) -> list[float]:
    """For each of a node's steps, the largest deviation of its slope over its bound."""
    names = {name for step in steps for name, _ in step.terms}
    u = {name: np.asarray(observed[name], np.float64) for name in names}
    d = {name: random.choice([-1.0, 1.0], value.shape) * _scale(value) for name, value in u.items()}
    at = {
        h: _values(use, steps, scope, trace, {name: u[name] + h * d[name] for name in names})
        for h in (-2 * _STEP, -_STEP, 0.0, _STEP, 2 * _STEP)
    }
    ratios = []
    for index, step in enumerate(steps):
        near = (at[_STEP][index] - at[-_STEP][index]) / (2 * _STEP)
        far = (at[2 * _STEP][index] - at[-2 * _STEP][index]) / (4 * _STEP)
        ours, size = np.zeros(step.shape), np.zeros(step.shape)
        for name, L in step.terms:
            ours = ours + L.apply(d[name][None])[0]
            size = size + L.magnitude().apply(np.abs(d[name])[None])[0]
        sizes = np.abs(at[0.0][index]) if step.offset_size is None else np.abs(step.offset_size)
        bound = growth(step.fan_in + 16, arithmetic.u) * size + np.abs(near - far)
        bound = bound + growth(step.fan_in + 16, _DOUBLE.u) * (sizes + size) / _STEP + arithmetic.eta
        ratio = float(np.max(np.abs(ours - near) / bound, initial=0.0))
        ratios.append(ratio if np.isfinite(ratio) else float("inf"))
    return ratios


def _scale(value: Array) -> float:
    return float(np.abs(value).mean()) or 1.0


def _values(
    use: Verdict, steps: list[Step], scope: Scope, trace: Trace, inputs: Mapping[str, Array]
) -> list[Array]:
    """The node's equation at other inputs: its step there, evaluated there, in float64."""
    block = {name: value[None] for name, value in inputs.items()}
    there = {step.output: step for step in relowered(use, scope, trace, inputs)}
    return [there[step.output].apply(block, np.ones(1))[0] for step in steps]
