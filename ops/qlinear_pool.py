"""QLinearAveragePool, QLinearGlobalAveragePool, QLinearConcat: means and joins of quantised numbers.

y = saturate(round(f(s (x - z)) / s_y) + z_y) with f as in AveragePool and Concat. Read exactly, the integers
x do not move with the model's input, and scales that do only make y jump. Read straight through: f in units
of y's grid, within the range of y and off by half a step of it.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..runtime.primitives import Array, Primitive, Scale, Scatter, chain
from ..runtime.program import Kind
from ._quantization import exact, numbers, requantized, straight_through, zero_point_type
from ._rule import Local, Site, locally_constant, lowers
from .average_pool import average_pool, global_average_pool

_MS = "com.microsoft"

locally_constant(
    __name__, "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearConcat", domain=_MS, when=exact
)


@lowers(
    "QLinearAveragePool",
    domain=_MS,
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0,),
    linear_in=(0,),
    when=straight_through,
)
def qlinear_average_pool(site: Site) -> Local:
    """Average over every window."""
    return _averaged(site, average_pool)


@lowers(
    "QLinearGlobalAveragePool",
    domain=_MS,
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0,),
    linear_in=(0,),
    when=straight_through,
)
def qlinear_global_average_pool(site: Site) -> Local:
    """Average over every channel."""
    return _averaged(site, global_average_pool)


def _averaged(site: Site, rule: Callable[[Site], Local]) -> Local:
    if site.attribute("channels_last", 0):
        raise site.refuse(
            "takes channels last, which onnxruntime's optimiser writes; use the model before it"
        )
    ((_, mean),) = rule(site).by_position
    factor = numbers(site, 1) / numbers(site, 3)
    zero = mean.apply(np.full((1, *site.shape()), numbers(site, 2)))[0]
    L = chain(mean, Scale(mean.out_shape, factor))
    return requantized(site, {0: L}, numbers(site, 4) - zero * factor, zero_point_type(site, 4))


_OPERANDS = tuple(range(2, 3 * 256, 3))  # of QLinearConcat: y's scale and zero point come first


@lowers(
    "QLinearConcat",
    domain=_MS,
    kind=Kind.PIECEWISE_LINEAR,
    observes=_OPERANDS,
    linear_in=_OPERANDS,
    when=straight_through,
)
def qlinear_concat(site: Site) -> Local:
    """Place every operand, in units of y's grid."""
    operands = range(2, len(site.inputs), 3)
    shapes = [site.shape(position) for position in operands]
    axis = site.attribute("axis") % len(shapes[0])
    ends = np.cumsum([shape[axis] for shape in shapes])
    joined = (*shapes[0][:axis], int(ends[-1]), *shapes[0][axis + 1 :])
    places = np.split(np.arange(math.prod(joined)).reshape(joined), ends[:-1], axis)
    terms: dict[int, Primitive] = {}
    offset: Array = np.zeros(joined)
    for position, place in zip(operands, places, strict=True):
        factor = numbers(site, position + 1) / numbers(site, 0)
        moved = site.active(position)
        held = 0.0 if moved else numbers(site, position)
        offset.flat[place.ravel()] = np.ravel(
            (held - numbers(site, position + 2)) * factor + np.zeros(place.shape)
        )
        if moved:
            terms[position] = chain(Scale(place.shape, factor), Scatter(joined, place))
    return requantized(site, terms, offset + numbers(site, 1), zero_point_type(site, 1))
