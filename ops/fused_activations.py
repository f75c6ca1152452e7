"""Gelu, BiasGelu, FastGelu, QuickGelu of onnxruntime (com.microsoft): y = g(u) · u for u = x (+ bias).

g is ½ (1 + erf(u / √2)); in FastGelu ½ (1 + tanh(√(2/π) (u + 0.044715 u³))); in QuickGelu σ(alpha · u).
Smooth; frozen mode holds g. onnxruntime's optimiser makes them of what a model spells out.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

import math
from collections.abc import Callable

import numpy as np

from ..runtime.primitives import Array, Primitive, Scale, chain
from ..runtime.program import Kind
from ._functions import erf, logistic
from ._rule import Local, Site, lowers
from ._smooth import TRANSCENDENTAL, tangent

MICROSOFT = "com.microsoft"
Function = Callable[[Array], Array]


def _weighed(site: Site, gate: Function, slope: Function) -> Local:
    """g(u) u, with g and its derivative given; operand 1, where it is there, is added to x."""
    shape = site.shape()
    u = site.value() + (site.value(1) if site.has(1) else 0)
    g = gate(u)
    factor = g if site.reading.frozen else g + u * slope(u)

    def into(position: int) -> Primitive:
        return chain(site.spread(position, shape), Scale(shape, factor))

    terms = [(position, into(position)) for position in (0, 1) if site.active(position)]
    size = np.abs(u)  # what onnxruntime's roundings are relative to, also where g is next to nothing
    if site.reading.frozen:
        held = sum(site.value(i) for i in (0, 1) if site.has(i) and not site.active(i))
        return Local(terms, g * held, offset_size=size, frozen=True, roundings=TRANSCENDENTAL)
    return tangent(site, g * u, terms, size=size)


@lowers("Gelu", "BiasGelu", domain=MICROSOFT, kind=Kind.SMOOTH, observes=(0, 1))
def gelu(site: Site) -> Local:
    """Weigh u by the normal distribution's share below it."""

    def gate(u: Array) -> Array:
        return np.asarray((1 + erf(u / np.asarray(math.sqrt(2), u.dtype))) / 2)

    def density(u: Array) -> Array:
        return np.asarray(np.exp(-(u**2) / 2) / np.asarray(math.sqrt(2 * math.pi), u.dtype))

    return _weighed(site, gate, density)


@lowers("FastGelu", domain=MICROSOFT, kind=Kind.SMOOTH, observes=(0, 1))
def fast_gelu(site: Site) -> Local:
    """Weigh u by that share, approximated by a hyperbolic tangent: ½ (1 + tanh v) = σ(2 v)."""
    twice = 2 * math.sqrt(2 / math.pi)

    def inner(u: Array) -> Array:
        return np.asarray(twice * (u + 0.044715 * u**3), u.dtype)

    def slope(u: Array) -> Array:
        rise = np.asarray(twice * (1 + 3 * 0.044715 * u**2), u.dtype)
        return np.asarray(logistic(inner(u)) * logistic(-inner(u)) * rise)

    return _weighed(site, lambda u: logistic(inner(u)), slope)


@lowers("QuickGelu", domain=MICROSOFT, kind=Kind.SMOOTH, observes=(0,))
def quick_gelu(site: Site) -> Local:
    """Weigh u by a sigmoid."""
    alpha = float(site.attribute("alpha", 1.702))
    return _weighed(
        site,
        lambda u: logistic(alpha * u),
        lambda u: alpha * logistic(alpha * u) * logistic(-alpha * u),
    )
