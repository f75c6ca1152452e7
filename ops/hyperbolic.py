"""Sinh, Cosh, Tanh, Asinh, Acosh, Atanh.

Smooth: at x a diagonal of derivatives. Acosh is refused at 1, where its derivative is infinite.
https://onnx.ai/onnx/operators/onnx__Sinh.html, …Cosh.html, …Tanh.html, …Asinh.html, …Acosh.html, …Atanh.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.program import Kind
from ._functions import sech2
from ._rule import Local, Site, explains, like, lowers
from ._smooth import Function, elementwise, elementwise_in_graph

_FUNCTIONS: dict[str, tuple[Function, Function]] = {  # with their slopes
    "Sinh": (np.sinh, np.cosh),
    "Cosh": (np.cosh, np.sinh),
    "Asinh": (np.arcsinh, lambda x: 1 / np.hypot(1, x)),
    "Acosh": (np.arccosh, lambda x: 1 / (np.sqrt(x - 1) * np.sqrt(x + 1))),
    "Atanh": (np.arctanh, lambda x: 1 / ((1 - x) * (1 + x))),
}


@lowers(*_FUNCTIONS, kind=Kind.SMOOTH, observes=(0,))
def hyperbolic(site: Site) -> Local:
    """The tangent at x."""
    return elementwise(site, *_FUNCTIONS[site.op_type])


@lowers("Tanh", kind=Kind.SMOOTH, observes=(0,), gate=True)
def tanh(site: Site) -> Local:
    """Tanh: the slope is 1 / cosh(x)²."""
    return elementwise(site, np.tanh, sech2)


@explains("Tanh")
def tanh_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent, of slope 4 σ(2x) σ(-2x)."""
    x = site.tensor()
    twice = graph.node("Add", x, x)
    sides = [graph.node("Sigmoid", side) for side in (twice, graph.node("Neg", twice))]
    four = like(site, graph, 4.0)
    return elementwise_in_graph(site, graph, graph.node("Mul", four, graph.node("Mul", *sides)))
