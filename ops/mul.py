"""Mul, Div: y = x₁ · x₂ and y = x₁ / x₂ with one operand fixed, with numpy's broadcasting.

Linear in the other operand: a diagonal matrix.
https://onnx.ai/onnx/operators/onnx__Mul.html, …Div.html
"""

from ..runtime.primitives import Array, Scale, chain
from ._rule import Local, Site, lowers


def _scaled(site: Site, position: int, factor: Array) -> Local:
    shape = site.broadcast_shape()
    return Local({position: chain(site.spread(position, shape), Scale(shape, factor))})


@lowers("Mul", products=((0, 1),))
def mul(site: Site) -> Local:
    """Scale the active operand by the other."""
    position = 0 if site.active(0) else 1
    return _scaled(site, position, site.value(1 - position))


@lowers("Div", products=((0, 1),), linear_in=(0,))
def div(site: Site) -> Local:
    """Scale the numerator by the denominator's reciprocal."""
    return _scaled(site, 0, 1 / site.value(1))
