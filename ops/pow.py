"""Pow, Sqrt, Reciprocal: y = x^p, with numpy's broadcasting; y = √x; y = 1/x.

Smooth: at x the slope in the base is p x^(p-1); it is affine where every exponent is 0 or 1. The slope in the
exponent is y log(x). A base of 0 is refused where the slope is infinite there, and a negative one where the
exponent depends on x. Frozen mode reads a power from the first on as it does the product x · … · x, with one
factor free: y = u^(p-1) x; a reciprocal is a gate, and so is a power with a constant exponent below 0.
https://onnx.ai/onnx/operators/onnx__Pow.html, …Sqrt.html, …Reciprocal.html
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Primitive, Scale, chain
from ..runtime.program import Kind
from ._rule import Constants, Local, Site, explains, like, lowers
from ._smooth import TRANSCENDENTAL, elementwise, elementwise_in_graph, finite, tangent


def _divides(_: Collection[int], constants: Constants) -> bool:
    """Whether it is one over a power."""
    exponent = constants(1)
    return exponent is not None and bool((exponent < 0).all())


@lowers("Pow", kind=Kind.SMOOTH, observes=(0, 1), gate=_divides)
def power(site: Site) -> Local:
    """The tangent at x in the base, the exponent, or both."""
    base, exponent = site.value(0), site.value(1)
    if base.dtype.kind != "f":
        raise site.refuse(f"its result is rounded to the type of its base, {base.dtype}")
    exponent = exponent.astype(np.result_type(base, exponent) if exponent.dtype.kind == "f" else base.dtype)
    with np.errstate(all="ignore"):  # what is not finite is found by name, in the values at x
        y = np.asarray(base**exponent)
        if not site.active(1) and np.isin(exponent, (0, 1)).all():
            return Local(_scale(site, 0, exponent != 0), np.where(exponent == 0, y, 0), kind=Kind.AFFINE)
        if site.reading.frozen and not site.active(1) and (exponent >= 1).all():
            gate = _scale(site, 0, base ** (exponent - 1))
            return Local(gate, frozen=True, roundings=TRANSCENDENTAL)
        terms = []
        if site.active(0):
            terms.append((0, _scale(site, 0, finite(site, _base_slope(base, exponent)))))
        if site.active(1):
            terms.append((1, _scale(site, 1, finite(site, _exponent_slope(base, exponent, y), 1))))
        return tangent(site, y, terms)


def _scale(site: Site, position: int, factor: Array) -> Primitive:
    shape = site.broadcast_shape()
    return chain(site.spread(position, shape), Scale(shape, factor))


def _base_slope(base: Array, exponent: Array) -> Array:
    return np.where(exponent == 0, 0, exponent * base ** (exponent - 1))


def _exponent_slope(base: Array, exponent: Array, y: Array) -> Array:
    return np.where((base == 0) & (exponent > 0), 0, y * np.log(base))


@lowers("Sqrt", kind=Kind.SMOOTH, observes=(0,))
def sqrt(site: Site) -> Local:
    """The square root."""
    return elementwise(site, np.sqrt, lambda x: 0.5 / np.sqrt(x))


@lowers("Reciprocal", kind=Kind.SMOOTH, observes=(0,), gate=True)
def reciprocal(site: Site) -> Local:
    """One over x."""
    return elementwise(site, np.reciprocal, lambda x: -1 / (x * x))


@explains("Sqrt")
def sqrt_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    return elementwise_in_graph(site, graph, graph.node("Div", like(site, graph, 0.5), site.outputs[0]))


@explains("Reciprocal")
def reciprocal_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    square = graph.node("Mul", site.outputs[0], site.outputs[0])
    return elementwise_in_graph(site, graph, graph.node("Neg", square))
