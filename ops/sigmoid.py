"""Sigmoid: y = 1 / (1 + exp(-x)).

Smooth: at x the slope is y (1 - y).
https://onnx.ai/onnx/operators/onnx__Sigmoid.html
"""

from ..runtime.emit import Builder
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._functions import logistic
from ._rule import Local, Site, explains, lowers
from ._smooth import elementwise, elementwise_in_graph


@lowers("Sigmoid", kind=Kind.SMOOTH, observes=(0,), gate=True)
def sigmoid(site: Site) -> Local:
    """The tangent at x."""
    # onnxruntime is good to 3 units of roundoff of 1; far below 0, where y is smaller, it is off by all of y.
    return elementwise(site, logistic, _slope, size=1.0)


def _slope(x: Array) -> Array:
    return logistic(x) * logistic(-x)  # 1 - y would cancel where y is near 1


@explains("Sigmoid")
def sigmoid_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    other = graph.node("Sigmoid", graph.node("Neg", site.tensor()))
    return elementwise_in_graph(site, graph, graph.node("Mul", site.outputs[0], other))
