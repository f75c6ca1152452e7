"""QLinearMatMul, MatMulInteger, QGemm, MatMulIntegerToFloat, DynamicQuantizeMatMul: quantised products.

MatMulInteger: y = (a - zₐ)(b - z_b). MatMulIntegerToFloat: y = that · sₐ s_b + c. QLinearMatMul:
y = saturate(round(that · sₐ s_b / s_y) + z_y). QGemm: the same of α sₐ s_b (that + c), which it returns as
it is where s_y is left out. DynamicQuantizeMatMul quantises a itself, as DynamicQuantizeLinear does.
Read exactly, integers do not move with the model's input, but a scale of a may. Read straight through: the
product, within the range of y and off by half a step of it.
https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html, …MatMulInteger.html,
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import numpy as np

from ..runtime.primitives import Array, Broadcast, Primitive, Reshape, Scale, Transpose, chain
from ..runtime.program import Kind
from ._quantization import (
    HALF,
    exact,
    numbers,
    requantized,
    straight_through,
    zero_point_type,
)
from ._rule import Local, Site, locally_constant, lowers
from .dynamic_quantize_linear import Grid, scale_of
from .matmul import times

_MS = "com.microsoft"

locally_constant(__name__, "QLinearMatMul", when=exact)


@lowers(
    "QLinearMatMul",
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0, 3),
    linear_in=(0, 3),
    products=((0, 3),),
    when=straight_through,
)
def qlinear_matmul(site: Site) -> Local:
    """Multiply, in units of y's grid."""
    position, L, lost = _product(site, 0, 3, numbers(site, 2), numbers(site, 5))
    factor = numbers(site, 1) * numbers(site, 4) / numbers(site, 6)
    offset = numbers(site, 7) - lost * factor
    return requantized(site, {position: _scaled(L, factor)}, offset, zero_point_type(site, 7))


@lowers("MatMulInteger", linear_in=(0, 1), products=((0, 1),), when=straight_through)
def matmul_integer(site: Site) -> Local:
    """Multiply."""
    position, L, lost = _product(site, 0, 1, numbers(site, 2), numbers(site, 3))
    return Local({position: L}, -lost)


@lowers("QGemm", domain=_MS, kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,), when=straight_through)
def qgemm(site: Site) -> Local:
    """Multiply, in units of y's grid if it has one."""
    a, b = site.shape(0), numbers(site, 3) - numbers(site, 5)
    turned: list[Primitive] = [Transpose(a, (1, 0))] if site.attribute("transA", 0) else []
    a = turned[0].out_shape if turned else a
    L = chain(*turned, times(a, b.T if site.attribute("transB", 0) else b, 0))
    factor = site.attribute("alpha", 1.0) * numbers(site, 1) * numbers(site, 4)
    offset = (numbers(site, 6) - _of_zero(L, numbers(site, 2))) * factor
    if not site.has(7):
        return Local(_scaled(L, factor), offset)
    step = numbers(site, 7)
    terms = {0: _scaled(L, factor / step)}
    return requantized(site, terms, offset / step + numbers(site, 8), zero_point_type(site, 8))


@lowers("MatMulIntegerToFloat", domain=_MS, linear_in=(0, 2), products=((0, 2),))
def matmul_integer_to_float(site: Site) -> Local:
    """Multiply and dequantise; or scale the product by a scale that depends on x."""
    _, L, lost = _product(site, 0, 1, numbers(site, 4), numbers(site, 5))
    factor, bias = numbers(site, 3), numbers(site, 6)
    if not site.active(2):
        factor = factor * numbers(site, 2)
        return Local(_scaled(L, factor), bias - lost * factor)
    return Local({2: _spread(site.shape(2), (L.apply(numbers(site, 0)[None])[0] - lost) * factor)}, bias)


@lowers(
    "DynamicQuantizeMatMul",
    domain=_MS,
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0,),
    linear_in=(0,),
    when=exact,
)
def by_the_scale(site: Site) -> Local:
    """The scale of a, by which the product of the integers is multiplied."""
    grid = Grid.of(site.value())
    scale = scale_of(site, grid)
    L, factor = _weighted(site)
    ((_, of_a),) = scale.by_position
    y = L.apply(grid.steps(site.value())[None])[0] * factor
    return Local(chain(of_a, _spread((), y)), numbers(site, 4), scale.guards)


@lowers("DynamicQuantizeMatMul", domain=_MS, linear_in=(0,), observes=(0,), when=straight_through)
def dynamic_quantize_matmul(site: Site) -> Local:
    """Multiply; each entry of a is off by a step at most."""
    L, factor = _weighted(site)
    total = _scaled(L, factor)
    off = np.full((1, *site.shape(0)), 2 * HALF * Grid.of(site.value()).scale)
    return Local(total, numbers(site, 4), slack=total.magnitude().apply(off)[0])


def _weighted(site: Site) -> tuple[Primitive, Array]:
    """The product by the distances of b to its zero point, and b's scale."""
    return times(site.shape(0), numbers(site, 1) - numbers(site, 3), 0), numbers(site, 2)


def _product(site: Site, a: int, b: int, zero_a: Array, zero_b: Array) -> tuple[int, Primitive, Array]:
    """The position of the operand that moves, or of a, its product, and what its zero point makes of that."""
    if site.active(b):
        L = times(site.shape(b), numbers(site, a) - zero_a, 1)
        return b, L, _of_zero(L, zero_b)
    L = times(site.shape(a), numbers(site, b) - zero_b, 0)
    return a, L, _of_zero(L, zero_a)


def _of_zero(L: Primitive, zero: Array) -> Array:
    return np.asarray(L.apply(np.broadcast_to(zero, L.in_shape)[None])[0])


def _scaled(L: Primitive, factor: Array) -> Primitive:
    """Each column of the product in another unit."""
    return chain(L, Scale(L.out_shape, np.asarray(factor)))


def _spread(own: tuple[int, ...], factors: Array) -> Primitive:
    """One number times each factor."""
    ones = (1,) * factors.ndim
    return chain(Reshape(own, ones), Broadcast(ones, factors.shape), Scale(factors.shape, factors))
