"""Mod: y = A - q B, where the quotient q of A and B is rounded down, or towards 0 with fmod.

At x: linear in both operands, with q held. An exact multiple of B belongs to the piece that its own quotient
starts, where y is 0. Guards: the multiples of B on either side of A.
https://onnx.ai/onnx/operators/onnx__Mod.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Broadcast, Primitive, Scale, chain
from ..runtime.program import Guard, HalfSpaces, Kind
from ._rule import Local, Site, explains, lowers


@lowers("Mod", kind=Kind.PIECEWISE_LINEAR, observes=None)
def mod(site: Site) -> Local:
    """Subtract the multiple of the divisor."""
    shape = site.broadcast_shape()
    a, b = site.value(0), site.value(1)
    quotient = _quotient(a, b, bool(site.attribute("fmod", 0)))
    terms: dict[int, Primitive] = {}
    if site.active(0):
        terms[0] = site.spread(0, shape)
    if site.active(1):
        terms[1] = chain(site.spread(1, shape), Scale(shape, -quotient))
    offset = None
    if not site.active(0):
        offset = a
    elif not site.active(1):
        offset = _product(-quotient, b)
    return Local(terms, offset, (_between_multiples(site, quotient),))


def _quotient(a: Array, b: Array, truncated: bool) -> Array:
    """The whole number q, in float64; it is exact where A and B are, as their remainder is."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    remainder = np.fmod(a, b)
    quotient = np.rint((a - remainder) / b)
    return quotient if truncated else quotient - ((remainder != 0) & ((remainder < 0) != (b < 0)))


def _between_multiples(site: Site, quotient: Array) -> Guard:
    """Guard of the quotient: two half-spaces s A + t B ≥ 0 for each entry, below and above it."""
    shape = quotient.shape
    a, b = site.value(0), site.value(1)
    side = np.where(b < 0, -1.0, 1.0)
    if site.attribute("fmod", 0):
        sign = np.where(a < 0, -1.0, 1.0)
        first = np.where(quotient == 0, 1.0, sign), np.where(quotient == 0, side, -sign * quotient)
        second = np.where(quotient == 0, -1.0, -sign), np.where(quotient == 0, side, sign * quotient + side)
    else:
        first, second = (side, -side * quotient), (-side, side * (quotient + 1))
    factors = [np.stack(np.broadcast_arrays(*pair, quotient)[:2]) for pair in zip(first, second, strict=True)]

    def margins() -> Array:
        both = sum(_product(factor, site.value(i)) for i, factor in enumerate(factors))
        return np.asarray(np.min(both, axis=0))

    def half_spaces() -> HalfSpaces:
        both = (2, *shape)
        terms, offset = [], np.zeros(both)
        for i, factor in enumerate(factors):
            if site.active(i):
                copied = Broadcast(site.shape(i), both)
                terms.append((i, chain(copied, Scale(both, factor))))
            else:
                offset += _product(factor, site.value(i))
        return HalfSpaces(tuple(terms), offset)

    return Guard(quotient, margins, half_spaces)


def _product(factor: Array, value: Array) -> Array:
    """The product, in which 0 stays 0: of an infinite divisor, x is in the multiple 0."""
    out = np.zeros(np.broadcast_shapes(factor.shape, value.shape))
    return np.multiply(factor, value, out=out, where=factor != 0)


@explains("Mod")
def mod_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """What a held operand adds, and the negative quotients where the divisor depends on x."""
    node, a, b = graph.node, site.tensor(0), site.tensor(1)
    zero = node("CastLike", graph.constant(np.zeros(())), a)
    remainder = node("Mod", a, b, fmod=1)
    quotient = node("Round", node("Div", node("Sub", a, remainder), b))
    if not site.attribute("fmod", 0):
        apart = node("Xor", node("Less", remainder, zero), node("Less", b, zero))
        lower = node("And", apart, node("Not", node("Equal", remainder, zero)))
        quotient = node("Sub", quotient, node("CastLike", lower, a))
    negative = node("Neg", quotient)
    if not site.active(1):
        return (node("Mul", negative, b),)
    return (negative,) if site.active(0) else (a, negative)
