"""QLinearAdd, …Mul, …LeakyRelu, …Sigmoid, …Where: on numbers that are quantised before and behind.

y = saturate(round(f(s (x - z), …) / s_y) + z_y). Read exactly, the integers x do not move with the model's
input, and scales that do only make y jump. Read straight through: f in units of y's grid, within the range
of y and off by half a step of it.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..runtime.primitives import Array, Scale, chain
from ..runtime.program import Kind
from ._functions import logistic
from ._quantization import HALF, exact, integer_range, numbers, requantized, straight_through, zero_point_type
from ._rule import Local, Site, locally_constant, lowers, threshold
from ._smooth import tangent

_MS = "com.microsoft"

locally_constant(
    *(__name__, "QLinearAdd", "QLinearMul", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearWhere"),
    domain=_MS,
    when=exact,
)


def _grid(site: Site, position: int) -> np.dtype[Any]:
    if not site.has(position):
        raise site.refuse("give y a zero point: its type tells the range of the integers")
    return zero_point_type(site, position)


def _number(site: Site, position: int) -> Array:
    """What a quantised operand that does not move stands for."""
    return (numbers(site, position) - numbers(site, position + 2)) * numbers(site, position + 1)


@lowers(
    "QLinearAdd",
    domain=_MS,
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0, 3),
    linear_in=(0, 3),
    when=straight_through,
)
def qlinear_add(site: Site) -> Local:
    """Each operand in units of y's grid."""
    shape = np.broadcast_shapes(site.shape(0), site.shape(3))
    step, terms = numbers(site, 6), {}
    offset = np.broadcast_to(numbers(site, 7), shape)
    for position in (0, 3):
        if site.active(position):
            factor = numbers(site, position + 1) / step
            terms[position] = chain(site.spread(position, shape), Scale(shape, factor))
            offset = offset - numbers(site, position + 2) * factor
        else:
            offset = offset + _number(site, position) / step
    return requantized(site, terms, offset, _grid(site, 7))


@lowers(
    "QLinearMul",
    domain=_MS,
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0, 3),
    linear_in=(0, 3),
    products=((0, 3),),
    when=straight_through,
)
def qlinear_mul(site: Site) -> Local:
    """Scale the operand that moves by the other."""
    shape = np.broadcast_shapes(site.shape(0), site.shape(3))
    position, other = (0, 3) if site.active(0) else (3, 0)
    factor = _number(site, other) * numbers(site, position + 1) / numbers(site, 6)
    offset = np.broadcast_to(numbers(site, 7) - numbers(site, position + 2) * factor, shape)
    L = chain(site.spread(position, shape), Scale(shape, factor))
    return requantized(site, {position: L}, offset, _grid(site, 7))


@lowers(
    "QLinearLeakyRelu",
    domain=_MS,
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0,),
    linear_in=(0,),
    when=straight_through,
)
def qlinear_leaky_relu(site: Site) -> Local:
    """Scale, and below the zero point by alpha besides; guards: that side, and the ends of the range."""
    x, zero = site.value(), numbers(site, 2)
    slope = np.where(x > zero, 1.0, site.attribute("alpha", 0.01)) * numbers(site, 1) / numbers(site, 3)
    local = requantized(site, {0: Scale(x.shape, slope)}, numbers(site, 4) - zero * slope, _grid(site, 4))
    return replace(local, guards=(threshold(x, zero), *local.guards))


@lowers("QLinearSigmoid", domain=_MS, kind=Kind.SMOOTH, observes=(0,), linear_in=(0,), when=straight_through)
def qlinear_sigmoid(site: Site) -> Local:
    """The tangent, held at the ends of the range."""
    low, high = integer_range(site, _grid(site, 4))
    scale, step = numbers(site, 1), numbers(site, 3)
    u = (site.value() - numbers(site, 2)) * scale
    y = logistic(u) / step + numbers(site, 4)
    inside = (y > low) & (y <= high)
    slope = logistic(u) * logistic(-u) * scale / step * inside
    held = tangent(site, np.clip(y, low, high), [(0, Scale(u.shape, slope))])
    return replace(held, slack=np.where(inside, HALF, 0.0))


@lowers(
    "QLinearWhere",
    domain=_MS,
    kind=Kind.PIECEWISE_LINEAR,
    observes=(1, 4),
    linear_in=(1, 4),
    when=straight_through,
)
def qlinear_where(site: Site) -> Local:
    """Mask both branches, each in units of y's grid."""
    condition: Array = site.value(0)
    shape = np.broadcast_shapes(*(site.shape(position) for position in (0, 1, 4)))
    step, terms = numbers(site, 7), {}
    offset: Array = np.broadcast_to(numbers(site, 8), shape)
    for position, mask in ((1, condition), (4, ~condition)):
        if site.active(position):
            factor = mask * (numbers(site, position + 1) / step)
            terms[position] = chain(site.spread(position, shape), Scale(shape, factor))
            offset = offset - numbers(site, position + 2) * factor
        else:
            offset = offset + mask * _number(site, position) / step
    return requantized(site, terms, offset, _grid(site, 8))
