"""Mul, Div: y = x₁ · x₂ and y = x₁ / x₂, with numpy's broadcasting.

With one factor fixed, or the denominator, linear in the other operand: a diagonal matrix. Where both depend
on x, smooth: y = u₂ x₁ + u₁ x₂ - u₁ u₂ at u. Frozen mode holds the denominator, and of a product the gate;
where neither factor is one, each counts half: y = ½ u₂ x₁ + ½ u₁ x₂, which has no offset. A quotient of which
the denominator alone depends on x is such a gate, as Reciprocal is.
https://onnx.ai/onnx/operators/onnx__Mul.html, …Div.html
"""

from collections.abc import Collection

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Primitive, Scale, chain
from ._rule import Constants, Local, Site, explains, lowers
from ._smooth import product, tangent


def _scale(site: Site, position: int, factor: Array) -> Primitive:
    shape = site.broadcast_shape()
    return chain(site.spread(position, shape), Scale(shape, factor))


@lowers("Mul", products=((0, 1),), tangent=True)
def mul(site: Site) -> Local:
    """Scale each active operand by the other."""
    return product(site, lambda position: _scale(site, position, site.value(1 - position)))


def _only_below(moving: Collection[int], _: Constants) -> bool:
    """Whether the denominator alone depends on x."""
    return set(moving) == {1}


@lowers("Div", products=((0, 1),), linear_in=(0,), tangent=True, gate=_only_below)
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


@explains("Mul")
def mul_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The other factor of each active one; where both are, minus their product before them."""
    if site.reading.frozen:
        raise site.refuse("which of its factors are held is not known in the graph; export in mode 'tangent'")
    factors = [site.tensor(1 - position) for position in (0, 1) if site.active(position)]
    return (graph.node("Neg", site.outputs[0]), *factors) if len(factors) == 2 else tuple(factors)
