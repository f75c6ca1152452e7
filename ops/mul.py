"""Mul, Div: y = x₁ · x₂ and y = x₁ / x₂, with numpy's broadcasting.

With one factor fixed, or the denominator, linear in the other operand: a diagonal matrix. Where both depend
on x, smooth: y = u₂ x₁ + u₁ x₂ - u₁ u₂ at u. Frozen mode holds the denominator, and of a product the gate;
where neither factor is one, each counts half: y = ½ u₂ x₁ + ½ u₁ x₂, which has no offset.
https://onnx.ai/onnx/operators/onnx__Mul.html, …Div.html
"""

from ..runtime.primitives import Array, Primitive, Scale, chain
from ._rule import Local, Site, lowers
from ._smooth import product, tangent


def _scale(site: Site, position: int, factor: Array) -> Primitive:
    shape = site.broadcast_shape()
    return chain(site.spread(position, shape), Scale(shape, factor))


@lowers("Mul", products=((0, 1),), tangent=True)
def mul(site: Site) -> Local:
    """Scale each active operand by the other."""
    return product(site, lambda position: _scale(site, position, site.value(1 - position)))


@lowers("Div", products=((0, 1),), linear_in=(0,), tangent=True)
def div(site: Site) -> Local:
    """Scale the numerator by the denominator's reciprocal."""
    if not site.active(1):
        return Local(_scale(site, 0, 1 / site.value(1)))
    denominator = site.value(1)
    y = site.value(0) / denominator
    terms = [(1, _scale(site, 1, -y / denominator))]
    if site.active(0):
        terms.append((0, _scale(site, 0, 1 / denominator)))
    return tangent(site, y, terms)
