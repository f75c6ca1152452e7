"""Swish, SwiGLU, Mish, HardSwish: y = x g(x) with a gate g; SwiGLU: y = x₁ g(x₁) x₂.

Swish, SwiGLU: g = 1 / (1 + exp(-alpha x)). Mish: g = tanh(log(1 + exp(x))).
HardSwish: g = min(1, max(0, x/6 + 1/2)).
Smooth: at x the slope is g(x) + x g'(x). HardSwish is 0 or x where every entry lies outside of (-3, 3];
guards: the side of each end, an end itself counts as below it. Frozen mode holds g, and of SwiGLU all that
weighs x₂.
https://onnx.ai/onnx/operators/onnx__Swish.html, …SwiGLU.html, …Mish.html, …HardSwish.html
"""

import numpy as np

from ..runtime.primitives import Array, Scale
from ..runtime.program import Kind
from ._functions import logistic, sech2, softplus
from ._rule import Local, Site, lowers, threshold
from ._smooth import TRANSCENDENTAL, elementwise, tangent


@lowers("Swish", kind=Kind.SMOOTH, observes=(0,))
def swish(site: Site) -> Local:
    """Weighed by a sigmoid."""
    alpha = float(site.attribute("alpha", 1.0))

    def gate(x: Array) -> Array:
        return logistic(alpha * x)

    def slope(x: Array) -> Array:
        return _swish_slope(x, alpha)

    return elementwise(site, lambda x: x * gate(x), slope, gate=gate, size=_rounded_at_one(site))


def _swish_slope(x: Array, alpha: float) -> Array:
    return logistic(alpha * x) * (1 + alpha * x * logistic(-alpha * x))


@lowers("SwiGLU", observes=(0, 1), linear_in=(1,), products=((0, 1),), tangent=True)
def swi_glu(site: Site) -> Local:
    """A swish that weighs another operand."""
    alpha, a, b = float(site.attribute("alpha", 1.0)), site.value(0), site.value(1)
    gate = logistic(alpha * a)
    by_b = Scale(b.shape, a * gate)
    size = np.abs(a * b)
    if not site.active(0):
        return Local([(1, by_b)], 0.0, offset_size=size, roundings=TRANSCENDENTAL)
    if site.reading.frozen:
        return Local(Scale(a.shape, gate * b), 0.0, offset_size=size, frozen=True, roundings=TRANSCENDENTAL)
    terms = [(0, Scale(a.shape, _swish_slope(a, alpha) * b)), *([(1, by_b)] if site.active(1) else [])]
    return tangent(site, a * gate * b, terms, size=size)


@lowers("Mish", kind=Kind.SMOOTH, observes=(0,))
def mish(site: Site) -> Local:
    """Weighed by the tanh of a softplus."""

    def gate(x: Array) -> Array:
        return np.asarray(np.tanh(softplus(x)))

    def slope(x: Array) -> Array:
        return np.asarray(gate(x) + x * sech2(softplus(x)) * logistic(x))

    return elementwise(site, lambda x: x * gate(x), slope, gate=gate, size=_rounded_at_one(site))


@lowers("HardSwish", kind=Kind.SMOOTH, observes=(0,))
def hard_swish(site: Site) -> Local:
    """Weighed by a ramp."""
    x = site.value()
    low, high = threshold(x, -3.0), threshold(x, 3.0)

    def gate(x: Array) -> Array:
        return np.clip(x / 6 + 0.5, 0, 1)

    def slope(x: Array) -> Array:
        return np.where((x > -3) & (x <= 3), x / 3 + 0.5, gate(x))

    outside = low.choice == high.choice
    size = _rounded_at_one(site)
    return elementwise(
        site, lambda x: x * gate(x), slope, gate=gate, guards=(low, high), straight=outside, size=size
    )


def _rounded_at_one(site: Site) -> Array:
    """|x|: onnxruntime's gates are good to a few units of roundoff of 1, not of themselves."""
    return np.abs(site.value())
