"""Sin, Cos, Tan, Asin, Acos, Atan.

Smooth: at x a diagonal of derivatives. Asin and Acos are refused at ±1, where theirs are infinite.
https://onnx.ai/onnx/operators/onnx__Sin.html, …Cos.html, …Tan.html, …Asin.html, …Acos.html, …Atan.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._rule import Local, Site, explains, lowers
from ._smooth import Function, elementwise, elementwise_in_graph


def _tan_slope(x: Array) -> Array:
    return np.asarray(1 + np.tan(x) ** 2)


def _asin_slope(x: Array) -> Array:
    return np.asarray(1 / np.sqrt((1 - x) * (1 + x)))  # 1 - x² would cancel near ±1


_FUNCTIONS: dict[str, tuple[Function, Function]] = {  # with their slopes
    "Sin": (np.sin, np.cos),
    "Cos": (np.cos, lambda x: -np.sin(x)),
    "Tan": (np.tan, _tan_slope),
    "Asin": (np.arcsin, _asin_slope),
    "Acos": (np.arccos, lambda x: -_asin_slope(x)),
    "Atan": (np.arctan, lambda x: 1 / (1 + x * x)),
}


@lowers(*_FUNCTIONS, kind=Kind.SMOOTH, observes=(0,))
def trigonometric(site: Site) -> Local:
    """The tangent at x."""
    return elementwise(site, *_FUNCTIONS[site.op_type])


@explains("Sin")
def sin_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    return elementwise_in_graph(site, graph, graph.node("Cos", site.tensor()))


@explains("Cos")
def cos_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    return elementwise_in_graph(site, graph, graph.node("Neg", graph.node("Sin", site.tensor())))
