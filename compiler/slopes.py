"""Slopes of smooth steps against differences of the same steps, in float64.

At x a step's value says nothing about its Jacobian: the offset f(u) - J u makes any J look right there. So
the operator's equation f, which the values at x test against onnxruntime, is evaluated beside u, and J is
compared with its differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..runtime.certificate import Check
from ..runtime.errors import UnsupportedError
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram, Step
from ..runtime.rounding import Arithmetic, growth
from .lower import relowered
from .scope import Scope
from .trace import Trace
from .verdict import Verdict

_STEP = 2.0**-16  # relative to the size of what is moved: balances f's curvature and float64's rounding
_SHORT = 2.0**-28  # relative to each entry: inside of f's domain, and of x's piece, wherever x is
_INFINITE = 1e30  # what a mask holds for it
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
        mine = [steps[name] for name in use.varying if name in steps]
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
    signs = {name: random.choice([-1.0, 1.0], value.shape) for name, value in u.items()}

    def along(d: Mapping[str, Array], h: float) -> list[float]:
        points = ({name: u[name] + factor * h * d[name] for name in names} for factor in (-2, -1, 0, 1, 2))
        try:
            with np.errstate(all="ignore"):  # a point outside of f's domain counts as a deviation
                at = [_values(use, steps, scope, trace, point) for point in points]
        except UnsupportedError:  # a slope that is not finite, next to where it is
            return [float("inf")] * len(steps)
        return [
            _ratio(step, [values[index] for values in at], d, h, arithmetic)
            for index, step in enumerate(steps)
        ]

    ratios = along({name: signs[name] * _scale(u[name]) for name in names}, _STEP)
    if max(ratios) <= 1:
        return ratios
    # Nothing says over which distance f curves: large scores before a softmax, say, differ by 1 and not in
    # parts of their size. Each step size has a bound of its own, so one that passes is proof enough.
    closer = along({name: signs[name] * np.abs(u[name]) for name in names}, _SHORT)
    by_one = along(signs, _STEP)
    return [min(tried) for tried in zip(ratios, closer, by_one, strict=True)]


def _scale(value: Array) -> Array:
    """How far each entry is moved: as far as entries are large; those that stand for infinity not at all."""
    finite = np.abs(value) < _INFINITE
    size = float(np.abs(value[finite]).mean()) if finite.any() else 0.0
    return np.asarray(finite * (size or 1.0))


def _ratio(
    step: Step, at: Sequence[Array], d: Mapping[str, Array], h: float, arithmetic: Arithmetic
) -> float:
    """The largest deviation of a step's slope along d over its bound.

    Args:
        step: the step at u.
        at: f at u - 2hd, u - hd, u, u + hd and u + 2hd.
        d: what the inputs are moved by.
        h: the step size.
        arithmetic: that the Jacobian was computed in.
    """
    near, far = (at[3] - at[1]) / (2 * h), (at[4] - at[0]) / (4 * h)
    ours, size = np.zeros(step.shape), np.zeros(step.shape)
    for name, L in step.terms:
        ours = ours + L.apply(d[name][None])[0]
        size = size + L.magnitude().apply(np.abs(d[name])[None])[0]
    sizes = np.abs(at[2]) if step.offset_size is None else np.abs(step.offset_size)
    n = step.fan_in + 16
    moved = max((float(np.abs(part).max(initial=0)) for part in d.values()), default=0.0)
    bound = growth(n, arithmetic.u) * size + np.abs(near - far) + n * arithmetic.eta * (1 + moved)
    bound = bound + growth(n, _DOUBLE.u) * (sizes + size) / h
    if step.guards and h == _SHORT:  # on a kink, any slope between those of its two sides
        bound = bound + np.abs(at[4] - 2 * at[2] + at[0]) / (2 * h)
    ratio = float(np.max(np.abs(ours - near) / bound, initial=0.0))
    return ratio if np.isfinite(ratio) else float("inf")


def _values(
    use: Verdict, steps: list[Step], scope: Scope, trace: Trace, inputs: Mapping[str, Array]
) -> list[Array]:
    """The node's equation at other inputs: its step there, evaluated there, in float64."""
    block = {name: value[None] for name, value in inputs.items()}
    there = {step.output: step for step in relowered(use, scope, trace, inputs)}
    return [there[step.output].apply(block, np.ones(1))[0] for step in steps]
